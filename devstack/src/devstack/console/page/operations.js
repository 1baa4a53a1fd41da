// What is asked for, by operation; and how one of them, or all, went over time.

import { ask } from "./ask.js";
import { byId, h, keyed, say } from "./dom.js";
import { Chart, spark } from "./charts.js";
import { duration, rate, share, time } from "./format.js";
import { failing } from "./states.js";

const ALL = { kind: "edge", key: "all", title: "All requests" };
const EMPTY = {
  http: "Nobody has asked for anything in the last 15 minutes. “Try it” above has a request to copy.",
  rpc: "No service has called another in the last 15 minutes.",
  database: "No statement was run in the last 15 minutes.",
};
const each = (value) => (value === 0 ? "0" : rate(value, 1));
const throughput = new Chart(byId("throughput"), [
  { name: "answered", class: "ok", value: (point) => point.ok },
  { name: "refused", class: "refused", value: (point) => point.refused },
  { name: "failed", class: "failed", value: (point) => point.failed },
], { stacked: true, write: each, labelledBy: "throughput-title" });
const latency = new Chart(byId("latency"), [
  { name: "half within", class: "p50", value: (point) => point.p50 },
  { name: "95 % within", class: "p95", value: (point) => point.p95 },
  { name: "99 % within", class: "p99", value: (point) => point.p99 },
], { stacked: false, write: duration, labelledBy: "latency-title" });
let charted = ALL;
let kind = "http";
let last = null;

byId("kinds").addEventListener("change", (event) => {
  kind = event.target.value;
  if (last !== null) showOperations(last);
});
byId("uncharted").addEventListener("click", () => {
  choose(ALL);
  byId("traffic-title").scrollIntoView({ block: "nearest" });
});
byId("points").addEventListener("toggle", () => showTraffic());

export function showOperations(told) {
  last = told;
  const rows = told.rows.filter((row) => row.kind === kind);
  const none = byId("no-operations");
  none.hidden = rows.length > 0;
  say(none, EMPTY[kind]);
  keyed(byId("operation-rows"), rows, (row) => `${row.kind} ${row.key}`, newRow, (element, row) => {
    const [name, service, often, refused, failed, p50, p95, course] = element.children;
    const button = name.firstElementChild;
    say(button, row.title);
    button.setAttribute("aria-pressed", String(charted.kind === row.kind && charted.key === row.key));
    say(service, row.service);
    say(often, rate(row.count, told.seconds));
    say(refused, share(row.refused, row.count));
    say(failed, share(row.failed, row.count));
    element.dataset.state = failing(row);
    say(p50, duration(row.p50));
    say(p95, duration(row.p95));
    course.replaceChildren(spark(row.sparks, failing(row)));
  });
}

export async function showTraffic() {
  const asked = charted;
  const told = await ask("/data/course", { kind: asked.kind, key: asked.key });
  if (told === null || asked !== charted) return;
  const now = last?.at ?? Date.now() / 1000;
  throughput.show(told.points, now);
  latency.show(told.points, now);
  if (!byId("points").open) return;
  keyed(byId("point-rows"), told.points.slice(-60).reverse(), (point) => point.at,
    () => h("tr", {}, h("th", { scope: "row" }), ...Array.from({ length: 6 }, () => h("td", { class: "number" }))),
    (row, point) => {
      const texts = [time(point.at), each(point.ok), each(point.refused), each(point.failed), duration(point.p50), duration(point.p95), duration(point.p99)];
      texts.forEach((text, index) => say(row.children[index], text));
    });
}

function newRow(row) {
  const chart = { kind: row.kind, key: row.key, title: row.title };
  const button = h("button", { type: "button", class: "name", title: "Show its course", onclick: () => choose(charted.kind === chart.kind && charted.key === chart.key ? ALL : chart) });
  const numbers = ["wide", "number", "number wide", "number failed-share", "number wide", "number", "wide"];
  return h("tr", {}, h("th", { scope: "row" }, button), ...numbers.map((name) => h("td", { class: name })));
}

function choose(chart) {
  charted = chart;
  say(byId("charted"), chart.title);
  byId("uncharted").hidden = chart === ALL;
  if (last !== null) showOperations(last);
  showTraffic();
}
