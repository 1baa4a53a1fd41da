// What a newcomer does first: asks the API, logs in.

import { byId, copyButton, h, keyed, say } from "./dom.js";

export function showStart(told) {
  const links = [
    { href: `${told.public}/docs`, text: "API reference", note: "every operation, to try" },
    { href: "/docs/tutorial.md", text: "Tutorial", note: "fifteen minutes" },
    { href: "/docs/architecture.md", text: "Architecture", note: "how it works" },
    { href: "/docs/runbooks/README.md", text: "Runbooks", note: "what to do when" },
  ];
  keyed(byId("links"), links, (link) => link.href,
    (link) => h("li", {}, h("a", { href: link.href }, link.text), " ", h("span", { class: "muted" }, link.note)),
    () => {});
  const examples = [
    { what: "a request", text: `curl ${told.public}/v1/products?limit=3` },
    { what: "a refused request", text: `curl -i ${told.public}/v1/orders` },
    { what: "a traced request", text: `curl -H "$(./backend trace --header)" ${told.public}/v1/products` },
  ];
  keyed(byId("examples"), examples, (example) => example.what,
    (example) => h("li", {}, h("code", {}, example.text), copyButton(() => example.text, example.what)),
    () => {});
  showAccounts(told);
}

function showAccounts(told) {
  const list = byId("accounts");
  if (told.accounts.length === 0) {
    say(list, told.demo_loading ? "They are being made." : "This stack has none (backend up --no-demo).");
    return;
  }
  if (list.firstElementChild === null) list.replaceChildren();
  keyed(list, told.accounts, (account) => account.email, account, () => {});
}

function account(account) {
  const password = h("code", { class: "password" }, "••••••••••••");
  const show = h("button", { type: "button", class: "small", "aria-pressed": "false", "aria-label": `Show the password of ${account.role}` }, "Show");
  show.addEventListener("click", () => {
    const shown = show.getAttribute("aria-pressed") !== "true";
    show.setAttribute("aria-pressed", String(shown));
    say(show, shown ? "Hide" : "Show");
    say(password, shown ? account.password : "••••••••••••");
  });
  return h("li", {},
    h("span", { class: "role" }, account.role),
    h("span", { class: "login" }, h("code", {}, account.email), copyButton(() => account.email, `the address of ${account.role}`)),
    h("span", { class: "login" }, password, show, copyButton(() => account.password, `the password of ${account.role}`)));
}
