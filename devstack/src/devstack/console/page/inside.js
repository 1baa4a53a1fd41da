// What fills up in each process.

import { byId, h, keyed, say } from "./dom.js";
import { bytes, duration, plural } from "./format.js";
import { state } from "./states.js";

export function showInside(told) {
  const processes = new Map(told.nodes.flatMap((node) => node.processes).map((process) => [process.name, process]));
  keyed(byId("processes"), told.inside, (inside) => inside.process,
    (inside) => h("li", {}, h("header", {}, h("span", { class: "dot" }), h("h3", {}, inside.process), h("span", { class: "word" }), h("a", { href: processes.get(inside.process)?.metrics, "aria-label": `Metrics of ${inside.process}` }, "/metrics")), h("dl", {}), h("div", { class: "meters" }), h("ul", { class: "facts" })),
    (item, inside) => {
      const [header, numbers, meters, facts] = item.children;
      const process = processes.get(inside.process);
      item.dataset.state = process ? state(process) : "waits";
      say(header.children[2], process?.state ?? "");
      showNumbers(numbers, inside);
      showMeters(meters, inside);
      showFacts(facts, inside);
    });
}

function showNumbers(list, inside) {
  const numbers = [["CPU", inside.cpu === null ? "–" : `${(100 * inside.cpu).toFixed(inside.cpu < 0.1 ? 1 : 0)} %`], ["Memory", bytes(inside.memory)], ["Loop lag", duration(inside.lag)]];
  const rows = numbers.filter(([, text]) => text !== "–");
  keyed(list, rows, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (row, [, text]) => say(row.lastElementChild, text));
}

function showMeters(list, inside) {
  const busy = inside.lanes.filter((lane) => lane.value || lane.waiting || lane.refused);
  const meters = [...(inside.pool ? [{ ...inside.pool, name: "Database pool" }] : []), ...busy.map((lane) => ({ ...lane, name: `Lane ${lane.name}` }))];
  keyed(list, meters, (meter) => meter.name,
    (meter) => h("div", { class: "gauge" }, h("span", {}, meter.name), h("span", { class: "number" }), h("meter", { min: "0", "aria-label": meter.name })),
    (row, meter) => {
      const [, text, gauge] = row.children;
      const full = meter.value / meter.most;
      row.dataset.state = meter.waiting > 0 ? "bad" : full > 0.8 ? "waits" : "";
      const besides = [meter.waiting ? `${meter.waiting} waiting` : "", meter.refused ? `${Math.round(meter.refused)} refused` : ""].filter(Boolean);
      say(text, [`${meter.value} of ${meter.most}`, ...besides].join(", "));
      gauge.max = meter.most;
      gauge.value = meter.value;
    });
}

function showFacts(list, inside) {
  const facts = [];
  const idle = inside.lanes.filter((lane) => !lane.value && !lane.waiting && !lane.refused).map((lane) => lane.name);
  if (idle.length) facts.push({ key: "lanes", text: `Idle lanes: ${idle.join(", ")}`, state: "good" });
  if (inside.connected !== null) facts.push(inside.connected ? { key: "valkey", text: `Valkey connected, ${plural(inside.valkey.value, "command")} waiting`, state: "good" } : { key: "valkey", text: "Valkey not connected", state: "bad" });
  const running = inside.workers.filter((worker) => worker.running);
  if (running.length) facts.push({ key: "workers", text: `${plural(running.length, "worker")} running: ${running.map(told).join(", ")}`, state: "good" });
  for (const worker of inside.workers) if (!worker.running) facts.push({ key: `worker ${worker.name}`, text: `Worker ${told(worker)} has ended`, state: "bad" });
  for (const cluster of inside.clusters) {
    const open = cluster.open.length > 0;
    const whole = cluster.healthy === cluster.members && cluster.ejected === 0;
    const left = cluster.ejected ? `, ${cluster.ejected} left out` : "";
    facts.push({ key: `calls ${cluster.name}`, text: `Calls ${cluster.name}: ${cluster.healthy} of ${plural(cluster.members, "replica")} healthy${left}, ${open ? `breaker open: ${cluster.open.join(", ")}` : "breakers closed"}`, state: open || cluster.healthy === 0 ? "bad" : whole ? "good" : "waits" });
  }
  if (inside.lost_spans) facts.push({ key: "spans", text: `${plural(Math.round(inside.lost_spans), "span")} lost`, state: "waits" });
  keyed(list, facts, (fact) => fact.key, () => h("li", {}, h("span", { class: "dot" }), h("span")), (row, fact) => {
    row.dataset.state = fact.state;
    say(row.lastElementChild, fact.text);
  });
}

function told(worker) {
  return worker.restarts ? `${worker.name} (restarted ${worker.restarts === 1 ? "once" : `${worker.restarts} times`})` : worker.name;
}
