// What a process's state means: good, waits (it will be, or works less well), bad.

export const BAD = new Set(["bad"]);

export function state(process) {
  if (process.state === "ready") return Object.keys(process.found).length ? "waits" : "good";
  if (["waiting", "starting", "stopping"].includes(process.state)) return "waits";
  return "bad";
}

export function worst(processes) {
  const states = processes.map(state);
  if (states.includes("bad")) return "bad";
  return states.includes("waits") ? "waits" : "good";
}
