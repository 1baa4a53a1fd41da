// The recent traces, and one of them as a waterfall.

import { ask, repeatedly, seen } from "./ask.js";
import { byId, h, keyed, say } from "./dom.js";
import { ago, duration, plural, preciseTime } from "./format.js";
import { showRequest } from "./logs.js";

const EACH_MS = 3_000;
const MOST_SHOWN = 40;
const HUES = 8;
const services = [];
let wanted = "";
let known = [];
let chosen = "";
let picked = false;

export function beginTraces() {
  const section = byId("traces");
  let near = () => false;
  const now = repeatedly(recent, EACH_MS, () => near());
  near = seen(section, now);
  byId("trace-kinds").addEventListener("change", (event) => {
    wanted = event.target.value;
    list();
  });
  byId("find-trace").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = byId("trace-id").value.trim();
    if (id) open(id);
  });
}

// Show the trace that a request is in, where there is one.
export async function open(id, quiet = false) {
  picked = true;
  const waterfall = byId("waterfall");
  const told = await ask("/data/trace", { id });
  if (told !== null) {
    chosen = told.trace_id;
    show(told);
  } else if (!quiet) {
    chosen = "";
    waterfall.replaceChildren(h("p", { class: "empty" },
      `No span of ${id} is known. One request in ten is traced, and each that fails by our fault or takes longer than a second; all are kept for an hour.`));
  }
  list();
  if (!quiet) waterfall.focus({ preventScroll: window.innerWidth > 900 });
}

async function recent() {
  const told = await ask("/data/traces");
  if (told === null) return;
  known = told;
  list();
  // Until somebody chooses, what is worth a look first is shown.
  if (!picked && known.length && known[0].trace_id !== chosen) {
    chosen = known[0].trace_id;
    const whole = await ask("/data/trace", { id: chosen });
    if (whole !== null && !picked) show(whole);
  }
}

function list() {
  const now = Date.now() / 1000;
  const rows = known.filter((trace) => wanted === "" || trace[wanted]).slice(0, MOST_SHOWN);
  const element = byId("trace-list");
  element.dataset.empty = rows.length ? "" : { "": "No trace yet. One request in ten is traced; “Try it” has one that is.", failed: "No failed trace.", slow: "No trace took longer than a second." }[wanted];
  const longest = Math.max(...rows.map((trace) => trace.seconds), 0.000001);
  keyed(element, rows, (trace) => trace.trace_id,
    (trace) => h("li", {}, h("button", { type: "button", onclick: () => open(trace.trace_id) },
      h("span", { class: "badge" }), h("span", { class: "what" }), h("span", { class: "took" }), h("span", { class: "length" }, h("span")), h("span", { class: "muted when" }))),
    (item, trace) => {
      const button = item.firstElementChild;
      const [badge, what, took, length, when] = button.children;
      button.setAttribute("aria-current", String(trace.trace_id === chosen));
      button.dataset.state = trace.failed ? "bad" : trace.slow ? "waits" : "";
      say(badge, trace.failed ? "failed" : trace.slow ? "slow" : trace.status || "ok");
      say(what, short(trace.name));
      say(took, duration(trace.seconds));
      length.firstElementChild.style.width = `${Math.max(1, (100 * trace.seconds) / longest).toFixed(1)}%`;
      say(when, `${ago(Math.max(0, now - trace.at))}, ${plural(trace.spans, "span")}, ${trace.services.join(", ")}`);
    });
}

// A method without its package, which its service says.
function short(name) {
  return name.replace(/^(?:[a-z0-9_]+[.])+(?=[A-Z])/, "");
}

function hue(service) {
  if (!services.includes(service)) services.push(service);
  return services.indexOf(service) % HUES;
}

function show(told) {
  for (const service of ["edge", "bff", "user", "order", "limiter"]) hue(service);
  const total = Math.max(told.seconds, 0.000001);
  const head = h("header", {},
    h("h3", {}, told.bars[0]?.name ?? "A trace"),
    h("p", { class: "muted" }, `${preciseTime(told.at)}, ${duration(told.seconds)}, ${plural(told.bars.length + told.left_out, "span")}`),
    h("p", { class: "ids" }, h("span", {}, "trace ", h("code", {}, told.trace_id)),
      told.request_id ? h("span", {}, "request ", h("code", {}, told.request_id), " ", h("button", { type: "button", class: "small", onclick: () => showRequest(told.request_id) }, "Its log lines")) : null));
  const rows = told.bars.flatMap((bar) => {
    const facts = h("tr", { class: "facts", hidden: true }, h("td", { colspan: "3" }, h("dl", {}, ...Object.entries(bar.attributes).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]))));
    const button = h("button", { type: "button", "aria-expanded": "false" },
      h("span", { class: `service hue-${hue(bar.service)}` }, bar.service), " ", h("span", { class: "span-name", title: bar.name }, short(bar.name)));
    button.addEventListener("click", () => {
      facts.hidden = !facts.hidden;
      button.setAttribute("aria-expanded", String(!facts.hidden));
    });
    const name = h("th", { scope: "row" }, button, bar.outcome ? h("span", { class: "outcome" }, bar.outcome) : null);
    name.style.setProperty("--depth", bar.depth);
    const line = h("span", { class: `length hue-${hue(bar.service)}` });
    const begin = Math.min(99.5, (100 * bar.begin) / total);
    line.style.left = `${begin.toFixed(2)}%`;
    line.style.width = `${Math.max(0.5, Math.min(100 - begin, (100 * bar.seconds) / total)).toFixed(2)}%`;
    return [h("tr", { "data-state": bar.failed ? "bad" : "" }, name,
      h("td", { class: "lane" }, line, h("span", { class: "unseen" }, `begins after ${duration(bar.begin)}`)),
      h("td", { class: "number" }, bar.failed ? h("span", { class: "failed-mark" }, "failed ") : null, duration(bar.seconds))), facts];
  });
  byId("waterfall").replaceChildren(head,
    h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Spans" }, h("table", {},
      h("caption", { class: "unseen" }, "The spans of the trace, each below the one that it is a part of"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Span"), h("th", { scope: "col", class: "scale" }, h("span", {}, "0"), h("span", {}, duration(told.seconds / 2)), h("span", {}, duration(told.seconds))), h("th", { scope: "col", class: "number" }, "Took"))),
      h("tbody", {}, ...rows))),
    told.left_out ? h("p", { class: "muted" }, `${plural(told.left_out, "span")} more: backend trace ${told.trace_id}`) : "",
    told.other_traces ? h("p", { class: "muted" }, `The request is in ${plural(told.other_traces, "trace")} more, which is not shown.`) : "",
    told.sampled ? "" : h("p", { class: "muted" }, "It was not sampled: these are the spans of processes in which it failed or was slow."));
}
