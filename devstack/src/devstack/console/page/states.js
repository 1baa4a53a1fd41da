// What a process's state means: good, waits (it will be, or works less well), bad.

export const BAD = new Set(["bad"]);

export function state(process) {
  if (process.state === "ready") return Object.keys(process.found).length ? "waits" : "good";
  // What is started again has served, and does not now.
  if (process.state === "starting" && process.restarts > 0) return "bad";
  if (["waiting", "starting", "stopping"].includes(process.state)) return "waits";
  return "bad";
}

export function worst(processes) {
  const states = processes.map(state);
  if (states.includes("bad")) return "bad";
  return states.includes("waits") ? "waits" : "good";
}

// What failures mean, of so many: bad from one in a hundred on, before that worth a look.
export function failing({ failed, count }) {
  if (!(failed > 0)) return "";
  return failed >= count / 100 ? "bad" : "waits";
}
