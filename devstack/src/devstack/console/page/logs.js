// The log lines of all processes as they come, by time.

import { ask, repeatedly, seen } from "./ask.js";
import { byId, h, keyed, say } from "./dom.js";
import { plural, preciseTime } from "./format.js";
import { open } from "./traces.js";

const EACH_MS = 1_000;
const MOST_SHOWN = 400;
const TYPING_MS = 250;
let shown = [];
let after = 0;
let paused = false;
let asked = "";
let now = () => {};

export function beginLogs() {
  let near = () => false;
  now = repeatedly(more, EACH_MS, () => near() && !paused);
  near = seen(byId("logs"), now);
  const filters = byId("log-filters");
  let typing = 0;
  filters.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(again, TYPING_MS);
  });
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    again();
  });
  byId("log-pause").addEventListener("click", (event) => {
    paused = !paused;
    event.target.setAttribute("aria-pressed", String(paused));
    say(event.target, paused ? "Go on" : "Pause");
    if (paused) tell();
    else now();
  });
}

// Show the lines of one request, and its trace where there is one.
export function showRequest(id) {
  byId("log-filters").reset();
  byId("log-request").value = id;
  byId("log-routine").checked = true;
  again();
  byId("logs").scrollIntoView();
  byId("log-request").focus({ preventScroll: true });
}

function again() {
  shown = [];
  after = 0;
  paused = false;
  byId("log-pause").setAttribute("aria-pressed", "false");
  say(byId("log-pause"), "Pause");
  byId("log-lines").replaceChildren();
  now();
}

function filters() {
  const wanted = { level: byId("log-level").value, process: byId("log-process").value, contains: byId("log-contains").value.trim(), request: byId("log-request").value.trim() };
  if (byId("log-routine").checked) wanted.routine = "1";
  return wanted;
}

async function more() {
  const wanted = filters();
  asked = JSON.stringify(wanted);
  const told = await ask("/data/logs", { ...wanted, after });
  if (told === null || asked !== JSON.stringify(filters())) return;
  // The console was started again, and counts anew.
  if (told.last < after) {
    after = 0;
    shown = [];
    now();
    return;
  }
  const processes = byId("log-process");
  keyed(processes, ["", ...told.processes], (name) => name, (name) => h("option", { value: name }, name || "all"), () => {});
  const first = after === 0;
  after = told.last;
  if (told.lines.length || first) add(told.lines);
  tell();
}

function add(lines) {
  const list = byId("log-lines");
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  // An access line is written when its request has ended, with the time at which it began.
  shown = [...shown, ...lines].sort((one, other) => one.at - other.at || one.number - other.number).slice(-MOST_SHOWN);
  keyed(list, shown, (line) => line.number, newLine, () => {});
  if (follows) list.scrollTop = list.scrollHeight;
}

function newLine(line) {
  return h("li", { "data-level": line.level },
    h("time", { datetime: new Date(line.at * 1000).toISOString() }, preciseTime(line.at)),
    h("span", { class: "process" }, line.process),
    h("span", { class: "level" }, line.level),
    h("span", { class: "said" },
      h("span", { class: "text" }, line.text), " ",
      line.outcome ? h("strong", { class: "outcome" }, `${line.outcome} `) : null,
      line.detail ? h("span", { class: "muted" }, line.detail) : null,
      line.more ? h("pre", { class: "more" }, line.more) : null),
    line.request_id ? h("button", { type: "button", class: "request", title: "Its lines, and its trace", "aria-label": `Request ${line.request_id}: its lines, and its trace`, onclick: () => { showRequest(line.request_id); open(line.request_id, true); } }, line.request_id.slice(0, 8)) : h("span"));
}

function tell() {
  const count = plural(shown.length, "line");
  say(byId("log-state"), shown.length === 0 ? "No line is like this among the newest." : paused ? `${count}; paused` : `${count}, the newest last`);
}
