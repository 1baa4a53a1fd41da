import { ask, onReach, repeatedly } from "./ask.js";
import { byId, h, keyed, say } from "./dom.js";
import { duration, lasting, plural, rate, share, time } from "./format.js";
import { showInside } from "./inside.js";
import { beginLogs } from "./logs.js";
import { beginMails } from "./mails.js";
import { showOperations, showTraffic } from "./operations.js";
import { showStart } from "./start.js";
import { BAD, failing, state } from "./states.js";
import { showTopology } from "./topology.js";
import { beginTraces } from "./traces.js";

const ROUND_MS = 2_000;

function beginTheme() {
  const select = byId("theme");
  const apply = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  select.value = localStorage.getItem("theme") ?? "";
  apply(select.value);
  select.addEventListener("change", () => {
    localStorage.setItem("theme", select.value);
    apply(select.value);
  });
}

function showHealth(told) {
  const processes = told.nodes.flatMap((node) => node.processes);
  const bad = processes.filter((process) => state(process) !== "good");
  const pill = byId("health");
  if (processes.length === 0) {
    pill.dataset.state = "waits";
    say(pill, "Nothing runs");
  } else if (bad.length === 0) {
    pill.dataset.state = "good";
    say(pill, `All ${processes.length} ready`);
  } else {
    pill.dataset.state = bad.some((process) => BAD.has(state(process))) ? "bad" : "waits";
    say(pill, `${bad.map((process) => process.name).slice(0, 3).join(", ")}${bad.length > 3 ? ` and ${bad.length - 3} more` : ""}: ${bad.length === 1 ? bad[0].state : "not ready"}`);
  }
  document.title = `${bad.length ? `● ${bad.length} not ready · ` : ""}Backend console`;
}

function showTiles(told) {
  const total = told.total;
  const failed = total.failed > 0;
  const tiles = [
    { name: "Requests", value: rate(total.count, told.seconds), note: total.count ? plural(Math.round(total.count), "request") : "none yet", target: "#traffic" },
    { name: "Failed", value: share(total.failed, total.count), note: failed ? plural(Math.round(total.failed), "request") : "by our fault", state: failing(total), target: "#traces" },
    { name: "Refused", value: share(total.refused, total.count), note: "mistakes and limits", target: "#traffic" },
    { name: "95 % within", value: duration(total.p95), note: total.p50 === null ? "at the edge" : `half within ${duration(total.p50)}`, target: "#traffic" },
    { name: "Alerts", value: told.alerts.length ? String(told.alerts.length) : "none", note: told.alerts.length ? told.alerts[0].name : "active", state: told.alerts.length ? "bad" : "", target: told.alerts.length ? "#alerts" : "#inside" },
    { name: "Up for", value: lasting(told.at - told.since), note: `version ${told.version}`, target: "#inside" },
  ];
  keyed(byId("tiles"), tiles, (tile) => tile.name,
    () => h("li", {}, h("a", {}, h("span", { class: "name" }), h("strong"), h("span", { class: "note" }))),
    (element, tile) => {
      const link = element.firstElementChild;
      link.setAttribute("href", tile.target);
      link.dataset.state = tile.state ?? "";
      const [name, value, note] = link.children;
      say(name, tile.name);
      say(value, tile.value);
      say(note, tile.note);
    });
}

function showAlerts(told) {
  byId("alerts").hidden = told.alerts.length === 0;
  keyed(byId("alert-list"), told.alerts, (alert) => `${alert.name} ${alert.summary}`,
    () => h("li", {}, h("strong"), h("span", { class: "summary" }), h("span", { class: "since" }), h("a", {})),
    (element, alert) => {
      const [name, summary, since, link] = element.children;
      element.dataset.severity = alert.severity;
      say(name, alert.name);
      say(summary, alert.summary);
      say(since, `for ${lasting(told.at - alert.since)}`);
      link.setAttribute("href", `/${alert.runbook}`);
      say(link, "Runbook");
      link.setAttribute("aria-label", `Runbook of ${alert.name}`);
    });
}

let window_ = byId("window").value;

async function round() {
  const told = await ask("/data/overview", { window: window_ });
  if (told === null) return;
  showHealth(told);
  showTiles(told);
  showAlerts(told);
  showTopology(told);
  showStart(told);
  showOperations(told);
  showInside(told);
  say(byId("about"), `Backend console, version ${told.version}. What it shows is kept for an hour at most, in this stack's own directory. Last asked at ${time(told.at)}.`);
  await showTraffic();
}

beginTheme();
onReach((reached) => {
  const lost = byId("lost");
  lost.hidden = reached;
  say(lost, reached ? "" : "The console does not answer. What is seen here is what it said last; it is asked again every two seconds.");
  document.body.classList.toggle("is-lost", !reached);
});
const now = repeatedly(round, ROUND_MS);
byId("window").addEventListener("change", (event) => {
  window_ = event.target.value;
  now();
});
beginTraces();
beginMails();
beginLogs();
