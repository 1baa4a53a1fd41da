// Numbers and times as a reader reads them.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

// Two or three digits that matter.
const rounded = (value) => value.toFixed(value >= 99.5 ? 0 : value >= 0.95 ? 1 : 2).replace(/[.]0+$/, "");

// Of a count within some seconds: so many a second, or a minute where that is more easily read.
export function rate(count, seconds) {
  if (!(count > 0) || !(seconds > 0)) return "–";
  const each = count / seconds;
  if (each >= 1) return `${rounded(each)}/s`;
  const minute = each * 60;
  return `${minute >= 9.95 ? minute.toFixed(0) : minute.toFixed(1).replace(/\.0$/, "")}/min`;
}

export function share(part, whole) {
  if (!(whole > 0)) return "–";
  if (part === 0) return "0 %";
  const percent = (100 * part) / whole;
  return percent < 0.1 ? "<0.1 %" : `${percent >= 10 ? percent.toFixed(0) : percent.toFixed(1).replace(/\.0$/, "")} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${rounded(seconds * 1000)} ms`;
  return `${rounded(seconds)} s`;
}

export function bytes(value) {
  if (value === null) return "–";
  const mebibytes = value / 1048576;
  return mebibytes >= 1024 ? `${(mebibytes / 1024).toFixed(1)} GiB` : `${mebibytes.toFixed(0)} MiB`;
}

export function ago(seconds) {
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${seconds.toFixed(0)} s ago`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min ago`;
  return `${(seconds / 3600).toFixed(0)} h ago`;
}

export function lasting(seconds) {
  if (seconds < 90) return `${Math.max(0, seconds).toFixed(0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${(seconds / 86400).toFixed(0)} days`;
}

export const time = (at) => clock.format(new Date(at * 1000));

export const preciseTime = (at) => `${time(at)}.${String(Math.floor((at % 1) * 1000)).padStart(3, "0")}`;

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
