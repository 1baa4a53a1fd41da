// The processes in columns, from where requests come to where data are, and an arrow for each who calls another.

import { byId, h, keyed, say, svg } from "./dom.js";
import { rate, share } from "./format.js";
import { failing, state, worst } from "./states.js";

const WORDS = { good: "ready", waits: "not all well", bad: "not ready" };
const NARROW = 720;
// How far an arrow keeps from what it passes.
const CLEARANCE = 12;
let last = null;

export function showTopology(told) {
  last = told;
  const map = byId("map");
  const columns = [...Map.groupBy(told.nodes, (node) => node.column)].sort(([one], [other]) => one - other);
  if (map.firstElementChild === null) {
    map.append(svg("svg", { class: "arrows", "aria-hidden": "true" }), h("div", { class: "flows", "aria-hidden": "true" }), h("div", { class: "columns" }));
    new ResizeObserver(() => requestAnimationFrame(draw)).observe(map);
  }
  keyed(map.lastElementChild, columns, ([number]) => number,
    () => h("ul", { class: "column" }),
    (column, [, nodes]) => keyed(column, nodes, (node) => node.name, newNode, showNode));
  keyed(byId("call-rows"), told.links, (link) => `${link.caller} ${link.callee}`,
    (link) => h("tr", {}, h("th", { scope: "row" }, link.caller), h("td", {}, link.callee), ...["number", "number", "number failed-share"].map((name) => h("td", { class: name }))),
    (row, link) => {
      say(row.children[2], rate(link.count, told.seconds));
      say(row.children[3], share(link.refused, link.count));
      say(row.children[4], share(link.failed, link.count));
      row.dataset.state = failing(link);
    });
  draw();
}

function newNode(node) {
  return h("li", { class: "node", "data-name": node.name, "data-kind": node.kind },
    h("span", { class: "title" }, h("span", { class: "dot" }), h("strong", {}, node.name), h("span", { class: "word" })),
    h("span", { class: "muted what" }, node.what),
    h("ul", { class: "replicas" }),
    h("ul", { class: "found" }));
}

function showNode(element, node) {
  const [title, , replicas, found] = element.children;
  if (node.processes.length) {
    const now = worst(node.processes);
    element.dataset.state = now;
    const bad = node.processes.filter((process) => state(process) === now);
    say(title.lastElementChild, node.processes.length === 1 && now !== "good" && node.processes[0].state !== "ready" ? node.processes[0].state : WORDS[now]);
    title.lastElementChild.title = bad.map((process) => process.name).join(", ");
  }
  const several = node.processes.length > 1 ? node.processes : [];
  keyed(replicas, several, (process) => process.name,
    (process) => h("li", {}, h("span", { class: "dot" }), h("span", {}, process.name), h("span", { class: "unseen" })),
    (item, process) => {
      item.dataset.state = state(process);
      say(item.lastElementChild, `: ${process.state}`);
    });
  const facts = node.processes.flatMap((process) => [
    ...Object.entries(process.found).map(([check, what]) => `${several.length ? `${process.name}: ` : ""}${check}: ${what}`),
    ...(process.restarts ? [`${several.length ? `${process.name}: ` : ""}restarted ${process.restarts === 1 ? "once" : `${process.restarts} times`}`] : []),
  ]);
  keyed(found, facts.slice(0, 4), (fact) => fact, (fact) => h("li", {}, fact), () => {});
}

function draw() {
  const map = byId("map");
  if (last === null || map.firstElementChild === null) return;
  const [arrows, flows] = map.children;
  const outer = map.getBoundingClientRect();
  const upright = outer.width < NARROW;
  // Along is the way from clients to data, across the other: on a narrow screen down and right, else right and down.
  const box = (element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    const [x, y] = [left - outer.left, top - outer.top];
    return upright ? { from: y, to: y + height, low: x, high: x + width } : { from: x, to: x + width, low: y, high: y + height };
  };
  const point = (along, across) => (upright ? `${across.toFixed(1)} ${along.toFixed(1)}` : `${along.toFixed(1)} ${across.toFixed(1)}`);
  const nodes = new Map([...map.querySelectorAll(".node")].map((element) => [element.dataset.name, box(element)]));
  const columnOf = new Map(last.nodes.map((node) => [node.name, node.column]));
  const columns = Map.groupBy(last.nodes, (node) => node.column);
  const middle = (name) => (nodes.get(name).low + nodes.get(name).high) / 2;
  // Each end of an arrow has a place of its own on its side of a card, in the order of the other ends.
  const port = (link, end, other) => {
    const side = last.links.filter((one) => one[end] === link[end]).sort((one, two) => middle(one[other]) - middle(two[other]));
    const { low, high } = nodes.get(link[end]);
    return low + ((high - low) * (side.indexOf(link) + 1)) / (side.length + 1);
  };
  arrows.setAttribute("viewBox", `0 0 ${outer.width} ${outer.height}`);
  const drawn = last.links.filter((link) => nodes.has(link.caller) && nodes.has(link.callee));
  keyed(arrows, drawn, (link) => `${link.caller} ${link.callee}`, () => svg("path", { class: "arrow" }), (path, link) => {
    let [along, across] = [nodes.get(link.caller).to, port(link, "caller", "callee")];
    const [end, aim] = [nodes.get(link.callee).from, port(link, "callee", "caller")];
    let text = `M${point(along, across)}`;
    const curve = (toAlong, toAcross) => {
      const half = (along + toAlong) / 2;
      text += `C${point(half, across)} ${point(half, toAcross)} ${point(toAlong, toAcross)}`;
      [along, across] = [toAlong, toAcross];
    };
    for (let number = columnOf.get(link.caller) + 1; number < columnOf.get(link.callee); number += 1) {
      const passed = (columns.get(number) ?? []).map((node) => nodes.get(node.name)).sort((one, two) => one.low - two.low);
      if (passed.length === 0) continue;
      const gap = gapNear((across + aim) / 2, passed);
      curve(Math.min(...passed.map((card) => card.from)), gap);
      const far = Math.max(...passed.map((card) => card.to));
      text += `L${point(far, gap)}`;
      along = far;
    }
    curve(end, aim);
    path.setAttribute("d", text);
    path.dataset.state = failing(link) || (link.count > 0 ? "good" : "");
    path.style.setProperty("--seconds", `${Math.max(0.5, 3 - Math.log10(1 + link.count)).toFixed(2)}s`);
  });
  const placed = [];
  keyed(flows, upright ? [] : drawn.filter((link) => link.count > 0), (link) => `${link.caller} ${link.callee}`, () => h("span", { class: "flow" }), (flow, link) => {
    say(flow, link.failed > 0 ? `${rate(link.count, last.seconds)}\n✕ ${share(link.failed, link.count)}` : rate(link.count, last.seconds));
    flow.dataset.state = failing(link);
    const path = [...arrows.children].find((one) => one.dataset.key === flow.dataset.key || one.dataset.key === `${link.caller} ${link.callee}`);
    const length = path.getTotalLength();
    const size = { width: flow.offsetWidth || 60, height: flow.offsetHeight || 18 };
    const places = [0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73, 0.2, 0.8].map((part) => path.getPointAtLength(length * part));
    const meets = (at, other) => Math.abs(at.x - other.x) < (size.width + other.width) / 2 + 2 && Math.abs(at.y - other.y) < (size.height + other.height) / 2 + 1;
    const covered = (at) => [...nodes.values()].some((card) => at.x + size.width / 2 > card.from && at.x - size.width / 2 < card.to && at.y + size.height / 2 > card.low && at.y - size.height / 2 < card.high);
    const at = places.find((place) => !placed.some((other) => meets(place, other)) && !covered(place)) ?? places[0];
    placed.push({ x: at.x, y: at.y, ...size });
    flow.style.left = `${at.x.toFixed(1)}px`;
    flow.style.top = `${at.y.toFixed(1)}px`;
  });
}

// Where between cards, or beside all of them, an arrow passes that would like to pass at `wish`.
function gapNear(wish, cards) {
  const gaps = [cards[0].low - CLEARANCE, cards[cards.length - 1].high + CLEARANCE];
  for (let number = 1; number < cards.length; number += 1) gaps.push((cards[number - 1].high + cards[number].low) / 2);
  return gaps.reduce((best, gap) => (Math.abs(gap - wish) < Math.abs(best - wish) ? gap : best));
}
