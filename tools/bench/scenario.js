// One scenario at one concurrency; thresholds make the run fail when a promise is broken. With RATE, requests come at that
// rate a second whatever becomes of them, and those that failed are counted instead.
import http from "k6/http";
import { check } from "k6";

const { URL, SCENARIO, VUS, SECONDS, RATE, TOKEN, ORDER, PRODUCTS, ACCOUNTS } = __ENV;
const products = PRODUCTS.split(",");
const accounts = JSON.parse(ACCOUNTS);
const json = { "content-type": "application/json", authorization: `Bearer ${TOKEN}` };
let counter = 0;

const scenarios = {
  login: () => {
    const account = accounts[(__VU * 7919 + counter++) % accounts.length];
    return http.post(`${URL}/v1/auth/login`, JSON.stringify(account), { headers: json });
  },
  products: () => http.get(`${URL}/v1/products?limit=20`),
  order_read: () => http.get(`${URL}/v1/orders/${ORDER}`, { headers: json }),
  order_create: () =>
    http.post(`${URL}/v1/orders`, JSON.stringify({ items: [{ product_id: products[Math.floor(Math.random() * products.length)], quantity: 1 }] }), {
      headers: { ...json, "idempotency-key": `bench-${__VU}-${Date.now()}-${counter++}` },
    }),
};

const load = RATE
  ? {
      scenarios: {
        steady: {
          executor: "constant-arrival-rate",
          rate: Number(RATE),
          timeUnit: "1s",
          duration: `${SECONDS}s`,
          preAllocatedVUs: Number(VUS),
        },
      },
    }
  : {
      vus: Number(VUS),
      duration: `${SECONDS}s`,
      thresholds: { checks: ["rate>0.999"], http_req_failed: ["rate<0.001"] },
    };

export const options = {
  ...load,
  summaryTrendStats: ["med", "p(95)", "p(99)", "max"],
  discardResponseBodies: true,
};

export default function () {
  const response = scenarios[SCENARIO]();
  check(response, { "is a success": (r) => r.status >= 200 && r.status < 300 });
}

export function handleSummary(data) {
  const { http_reqs: requests, http_req_duration: duration, http_req_failed: failed } = data.metrics;
  const { dropped_iterations: dropped } = data.metrics;
  return {
    stdout: JSON.stringify({
      rate: requests.values.rate,
      p50: duration.values.med,
      p99: duration.values["p(99)"],
      requests: requests.values.count,
      failed: failed.values.passes,
      unsent: dropped ? dropped.values.count : 0,
    }),
  };
}
