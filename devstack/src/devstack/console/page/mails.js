// The mails that were taken instead of being delivered, and one of them, as text or as HTML.

import { ask, repeatedly, seen } from "./ask.js";
import { byId, h, keyed, say } from "./dom.js";
import { ago, plural } from "./format.js";

const EACH_MS = 3_000;
let known = [];
let chosen = "";
let form = "text";

export function beginMails() {
  const section = byId("mails");
  let near = () => false;
  const now = repeatedly(recent, EACH_MS, () => near());
  near = seen(section, now);
  byId("mail-forms").addEventListener("change", (event) => {
    form = event.target.value;
    show();
  });
}

async function recent() {
  const told = await ask("/data/mails");
  if (told === null) return;
  known = told;
  if (!known.some((mail) => mail.id === chosen)) {
    chosen = known.length ? known[0].id : "";
    show();
  }
  list();
}

function list() {
  const now = Date.now() / 1000;
  const element = byId("mail-list");
  element.dataset.empty = known.length ? "" : "No mail yet. Whoever registers or orders is written to.";
  keyed(element, known, (mail) => mail.id,
    (mail) => h("li", {}, h("button", { type: "button", onclick: () => choose(mail.id) },
      h("span", { class: "badge" }), h("span", { class: "what" }), h("span", { class: "took" }), h("span", { class: "muted when" }))),
    (item, mail) => {
      const button = item.firstElementChild;
      const [badge, what, , when] = button.children;
      button.setAttribute("aria-current", String(mail.id === chosen));
      say(badge, mail.times === 1 ? "mail" : `came ${plural(mail.times, "time")}`);
      say(what, mail.subject);
      say(when, `${ago(Math.max(0, now - mail.at))}, to ${mail.recipient}`);
    });
}

function choose(id) {
  chosen = id;
  show();
  list();
}

function show() {
  const place = byId("mail");
  const mail = known.find((one) => one.id === chosen);
  if (mail === undefined) {
    place.replaceChildren();
    return;
  }
  const facts = [["From", mail.sender], ["To", mail.recipient], ["Subject", mail.subject], ["Message-ID", mail.message_id]];
  // What it says is another document, which runs nothing, asks for nothing and is of no origin.
  const body = form === "html"
    ? h("iframe", { class: "mail-body", sandbox: true, title: `HTML of ${mail.subject}`, src: `/mails/${mail.id}` })
    : h("pre", { class: "mail-body", tabindex: "0" }, mail.text);
  place.replaceChildren(h("dl", { class: "mail-facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), body);
}
