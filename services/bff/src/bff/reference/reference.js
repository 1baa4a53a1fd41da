// The page at /docs: Swagger UI, and what this API adds to it. Logging in by itself, examples that work as they stand,
// and each operation's permission, rate limit and timeout.

const facts = JSON.parse(document.getElementById("facts").textContent);
const SCHEME = "accessToken";
// This tab's alone, and gone with it: an access token of a few minutes. The refresh token is a cookie no script reads.
const STORED = "reference.session";
// Stands in every Idempotency-Key until somebody writes a key of their own.
const FRESH_KEY = "new-at-each-try";

// ---- Calls of the page itself

class Refusal extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `the answer was ${status}`);
    this.status = status;
  }
}

async function call(path, { method = "GET", body, token } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  // A web client: its refresh token comes and goes as an HttpOnly cookie.
  if (path.startsWith("/v1/auth/")) headers["x-client"] = "web";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const content = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refusal(answer.status, content);
  return content;
}

function random(bytes) {
  // Not crypto.randomUUID(), which exists over HTTPS and on this machine only.
  const drawn = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- Who is logged in

let session = JSON.parse(sessionStorage.getItem(STORED));
let renewal = null;
let sessionChanged = () => {};

function keep(next) {
  session = next;
  if (next) sessionStorage.setItem(STORED, JSON.stringify(next));
  else sessionStorage.removeItem(STORED);
  if (next) ui.preauthorizeApiKey(SCHEME, next.token);
  else ui.authActions.logout([SCHEME]);
  sessionChanged();
}

async function begin(pair) {
  const me = await call("/v1/me", { token: pair.access_token });
  // A little early, for a request takes its time.
  const expires = Date.now() + pair.expires_in * 900;
  keep({ token: pair.access_token, expires, email: me.email, roles: me.roles });
  refill();
}

// One at a time, for a refresh token works once.
function renew() {
  renewal ??= call("/v1/auth/refresh", { method: "POST", body: {} })
    .then(begin, (error) => {
      if (error.status !== 401) throw error;
      keep(null);
    })
    .finally(() => { renewal = null; });
  return renewal;
}

async function currentToken() {
  if (session && session.expires < Date.now()) await renew();
  return session?.token;
}

async function logIn(email, password) {
  await begin(await call("/v1/auth/login", { method: "POST", body: { email, password } }));
}

async function logOut() {
  const token = await currentToken();
  if (token) await call("/v1/auth/logout", { method: "POST", token });
  keep(null);
}

// ---- The dialog

const dialog = document.getElementById("account");
const problem = document.getElementById("account-problem");
const button = (id) => document.getElementById(id);

function openDialog() {
  problem.textContent = "";
  button("log-out").hidden = !session;
  dialog.showModal();
}

async function attempt(action) {
  problem.textContent = "";
  try {
    await action();
    button("password").value = "";
    dialog.close();
  } catch (error) {
    problem.textContent = error.message;
  }
}

button("log-in").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => logIn(button("email").value, button("password").value));
});
button("newcomer").addEventListener("click", () => attempt(async () => {
  const [email, password] = [`visitor-${random(6)}@example.com`, random(12)];
  await call("/v1/auth/register", { method: "POST", body: { email, password, display_name: "Visitor" } });
  await logIn(email, password);
}));
button("log-out").addEventListener("click", () => attempt(logOut));
button("close").addEventListener("click", () => dialog.close());

// ---- Examples that work as they stand

// Where the contract says that an id comes from (x-example-from), by operation.
const operations = new Map();
const shown = new Set();

async function newest(list, token) {
  const { items } = await call(list, { token });
  // Not what is sold out, not this very session, and nobody whom it would lock out.
  return items.find((i) => i.available !== 0 && !i.current && !i.roles?.includes("admin"))?.id;
}

async function fill(id) {
  const { path, method, operation } = operations.get(id);
  const anonymous = operation.security?.length === 0;
  for (const [name, list] of Object.entries(operation["x-example-from"] ?? {})) {
    if (!path.includes(`{${name}}`)) continue;
    let value;
    try {
      const token = anonymous ? undefined : await currentToken();
      if (anonymous || token) value = await newest(list, token);
    } catch {
      // Who may not list them, or cannot now, gets no example; the field says what it wants.
    }
    // What somebody typed stays: Swagger UI puts it before this.
    ui.specActions.changeParam([path, method], name, "path", value ?? "");
  }
}

function refill() {
  for (const id of shown) fill(id);
}

function replaced(value, name, by) {
  if (Array.isArray(value)) return value.map((item) => replaced(item, name, by));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === name ? by : replaced(v, name, by)]));
}

async function withExamples(spec) {
  const { parameters, schemas } = spec.components;
  parameters.IdempotencyKey.example = FRESH_KEY;
  parameters.IdempotencyKey.description += `. As long as it says ${FRESH_KEY}, this page sends a new one at each try`;
  // An example that is somebody else's version would refuse the change.
  delete parameters.IfMatch.example;
  // Taken once, these would be refused the second time.
  const suffix = random(4);
  const email = `ada-${suffix}@example.com`;
  schemas.RegisterRequest.example.email = schemas.LoginRequest.example.email = email;
  schemas.CreateProductRequest.example.sku += `-${suffix.toUpperCase()}`;
  for (const { path, operation } of operations.values()) {
    for (const [name, list] of Object.entries(operation["x-example-from"] ?? {})) {
      const media = operation.requestBody?.content["application/json"];
      if (path.includes(`{${name}}`) || !media) continue;
      const schema = schemas[media.schema.$ref.split("/").pop()];
      const value = await newest(list).catch(() => undefined);
      if (value) media.example = replaced(schema.example, name, value);
    }
  }
}

// ---- What the contract says about each operation beside its shape

function terms(spec, operation) {
  const permission = operation["x-permission"];
  const limit = operation["x-rate-limit"] ?? spec["x-rate-limit"];
  const who = permission ? `\`${permission}\` (${facts.roles[permission].join(", ")})` : "none: no login needed";
  const counted = limit.counted === "globally" ? "" : ", in each edge";
  return (
    `${operation.description ?? ""}\n\n| Permission | Rate limit | Timeout |\n|---|---|---|\n` +
    `| ${who} | ${limit.requests} in ${limit.seconds} s${counted} | ${operation["x-timeout"] ?? spec["x-timeout"]} s |`
  );
}

async function prepared(spec) {
  // There is one, this one: a choice of it says nothing.
  delete spec.servers;
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (!operation.operationId) continue;
      operations.set(operation.operationId, { path, method, operation });
      operation.description = terms(spec, operation);
    }
  }
  await withExamples(spec);
  return spec;
}

// ---- Swagger UI

const additions = ({ React }) => ({
  statePlugins: {
    spec: { wrapActions: { updateJsonSpec: (original) => async (spec) => original(await prepared(spec)) } },
    // Authorize and every padlock open our dialog.
    auth: { wrapActions: { showDefinitions: (original) => (asked) => (asked ? openDialog() : original(asked)) } },
    layout: {
      wrapActions: {
        show: (original) => (thing, isShown) => {
          const [kind, , id] = thing;
          if (kind === "operations" && operations.has(id)) {
            if (isShown) {
              shown.add(id);
              fill(id);
            } else shown.delete(id);
          }
          return original(thing, isShown);
        },
      },
    },
  },
  wrapComponents: {
    authorizeBtn: (Original) => (props) => {
      [, sessionChanged] = React.useReducer((times) => times + 1, 0);
      const who = session ? `${session.email} (${session.roles.join(", ")})` : "Not logged in";
      return React.createElement("div", { className: "session" },
        React.createElement("p", { role: "status" }, who), React.createElement(Original, props));
    },
  },
});

async function beforeRequest(request) {
  if (request.loadSpec) return request;
  if (request.headers.Authorization) request.headers.Authorization = `Bearer ${await currentToken()}`;
  if (request.headers["Idempotency-Key"] === FRESH_KEY) request.headers["Idempotency-Key"] = random(16);
  return request;
}

function afterResponse(response) {
  const { pathname } = new URL(response.url);
  if (pathname === "/v1/auth/logout" && response.ok) keep(null);
  // What was just made or moved on is the next call's example.
  if (pathname.startsWith("/v1/")) refill();
  return response;
}

function ready() {
  if (session) ui.preauthorizeApiKey(SCHEME, session.token);
  // One that has expired since is renewed now, or at the first call when that fails.
  currentToken().catch(() => undefined);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

const ui = SwaggerUIBundle({
  url: "/openapi.yaml",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  // A dozen answers to an operation, coloured token by token again at each change, take seconds.
  syntaxHighlight: { activated: false },
  plugins: [additions],
  requestInterceptor: beforeRequest,
  responseInterceptor: afterResponse,
  onComplete: ready,
});
