// Asks the console, again and again while somebody looks.

const PATIENCE_MS = 10_000;
const hearers = new Set();
let lost = false;

// Whether the console answers, each time that this changes.
export function onReach(hear) {
  hearers.add(hear);
}

export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  try {
    const answer = await fetch(query ? `${path}?${query}` : path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    reach(true);
    return answer.ok ? await answer.json() : null;
  } catch {
    reach(false);
    return null;
  }
}

// Do something now and every so many milliseconds after it is done, while the page is seen and `wanted` says so.
// What is given back does it at once.
export function repeatedly(act, milliseconds, wanted = () => true) {
  let timer = 0;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      if (!document.hidden && wanted()) await act();
    } finally {
      running = false;
      timer = setTimeout(run, again ? 0 : milliseconds);
      again = false;
    }
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  run();
  return run;
}

// Whether an element is near what is seen of the page.
export function seen(element, changed = () => {}) {
  let near = false;
  new IntersectionObserver((entries) => {
    const was = near;
    near = entries[entries.length - 1].isIntersecting;
    if (near && !was) changed();
  }, { rootMargin: "400px" }).observe(element);
  return () => near;
}

function reach(now) {
  if (lost === !now) return;
  lost = !now;
  for (const hear of hearers) hear(now);
}
