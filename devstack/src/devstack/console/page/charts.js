// Courses over the last quarter of an hour, as large as there is room for.

import { h, say, svg } from "./dom.js";
import { time } from "./format.js";

const SECONDS = 900;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 58 };
const HEIGHT = 190;

export class Chart {
  // `series`: of each its name, class, and its value at a point, or null; `stacked` draws each upon the one before it.
  constructor(element, series, { stacked, write, labelledBy }) {
    this.series = series;
    this.stacked = stacked;
    this.write = write;
    this.points = [];
    this.now = 0;
    this.at = null;
    this.legend = h("ul", { class: "legend", "aria-hidden": "true" }, ...series.map((one) => h("li", { class: one.class }, h("span", { class: "swatch" }), h("span", {}, one.name), h("strong", {}))));
    this.svg = svg("svg", { role: "img", tabindex: "0", "aria-labelledby": labelledBy });
    this.summary = svg("desc");
    this.empty = h("p", { class: "empty" }, "Nothing yet");
    element.append(this.legend, this.svg, this.empty);
    this.element = element;
    new ResizeObserver(() => requestAnimationFrame(() => this.draw())).observe(element);
    this.svg.addEventListener("pointermove", (event) => this.point(this.timeAt(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  show(points, now) {
    this.points = points.filter((point) => point.at > now - SECONDS);
    this.now = now;
    this.draw();
  }

  timeAt(x) {
    return this.now - SECONDS + ((x - MARGIN.left) / this.plot) * SECONDS;
  }

  x(at) {
    return MARGIN.left + ((at - this.now + SECONDS) / SECONDS) * this.plot;
  }

  point(at) {
    this.at = at === null || this.points.length === 0 ? null : this.points.reduce((best, one) => (Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best)).at;
    this.draw();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || this.points.length === 0) return;
    event.preventDefault();
    const index = this.at === null ? this.points.length : this.points.findIndex((point) => point.at === this.at);
    this.at = this.points[Math.min(this.points.length - 1, Math.max(0, index + step))].at;
    this.draw();
  }

  draw() {
    const width = this.element.clientWidth;
    if (width === 0) return;
    this.plot = Math.max(10, width - MARGIN.left - MARGIN.right);
    const bottom = HEIGHT - MARGIN.bottom;
    const tops = this.points.map((point) => (this.stacked ? this.series.reduce((sum, one) => sum + (one.value(point) ?? 0), 0) : Math.max(0, ...this.series.map((one) => one.value(point) ?? 0))));
    const most = Math.max(0, ...tops);
    const ceiling = nice(most);
    const y = (value) => bottom - (value / ceiling) * (bottom - MARGIN.top);
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const at = y(ceiling * part);
      parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
      if (most > 0 || part === 0) parts.push(svg("text", { class: "axis", x: MARGIN.left - 8, y: at + 4, "text-anchor": "end" }, part === 0 ? "0" : this.write(ceiling * part)));
    }
    for (const minutes of [15, 10, 5, 0]) {
      const anchor = minutes === 15 ? "start" : minutes === 0 ? "end" : "middle";
      parts.push(svg("text", { class: "axis", x: this.x(this.now - minutes * 60), y: HEIGHT - 6, "text-anchor": anchor }, minutes ? `${minutes} min` : "now"));
    }
    if (most > 0) parts.push(...(this.stacked ? this.areas(y) : this.lines(y)));
    const chosen = this.points.find((point) => point.at === this.at);
    if (chosen) parts.push(svg("line", { class: "cursor", x1: this.x(chosen.at), x2: this.x(chosen.at), y1: MARGIN.top, y2: bottom }));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("height", HEIGHT);
    this.svg.replaceChildren(this.summary, ...parts);
    this.empty.hidden = most > 0;
    this.tell(chosen ?? this.points[this.points.length - 1], chosen !== undefined);
  }

  tell(point, chosen) {
    const said = this.series.map((one, index) => {
      const value = point === undefined ? null : one.value(point);
      const text = value === null ? "–" : this.write(value);
      say(this.legend.children[index].lastElementChild, text);
      return `${one.name} ${text}`;
    });
    this.legend.dataset.chosen = String(chosen);
    say(this.summary, `${chosen ? `At ${time(point.at)}` : "Now"}: ${said.join(", ")}. Arrow keys go through time; the table below has all numbers.`);
  }

  // A slot lasts from the one before it: its value holds for all of that.
  areas(y) {
    const floors = this.points.map(() => 0);
    return this.series.map((one) => {
      let upper = "";
      let lower = "";
      this.points.forEach((point, index) => {
        const left = this.x(index ? this.points[index - 1].at : point.at - 5).toFixed(1);
        const right = this.x(point.at).toFixed(1);
        const floor = y(floors[index]).toFixed(1);
        floors[index] += one.value(point) ?? 0;
        const top = y(floors[index]).toFixed(1);
        upper += `${upper ? "L" : "M"}${left} ${top}L${right} ${top}`;
        lower = `L${right} ${floor}L${left} ${floor}${lower}`;
      });
      return svg("path", { class: `area ${one.class}`, d: upper ? `${upper}${lower}Z` : "" });
    });
  }

  lines(y) {
    return this.series.flatMap((one) => {
      let text = "";
      const alone = [];
      this.points.forEach((point, index) => {
        const value = one.value(point);
        if (value === null) return;
        const before = index > 0 && one.value(this.points[index - 1]) !== null;
        const after = index + 1 < this.points.length && one.value(this.points[index + 1]) !== null;
        const [x, at] = [this.x(point.at).toFixed(1), y(value).toFixed(1)];
        text += `${before ? "L" : "M"}${x} ${at}`;
        if (!before && !after) alone.push(svg("circle", { class: `dot ${one.class}`, cx: x, cy: at, r: 2.5 }));
      });
      return [svg("path", { class: `line ${one.class}`, d: text }), ...alone];
    });
  }
}

export function spark(values, state) {
  const most = Math.max(...values, 0);
  const width = 3;
  const bars = values.map((value, index) => {
    const height = value > 0 ? Math.max(1.5, (value / most) * 20) : 0.5;
    return svg("rect", { x: index * (width + 1), y: 22 - height, width, height });
  });
  return svg("svg", { class: "spark", "data-state": state, viewBox: `0 0 ${values.length * (width + 1)} 22`, "aria-hidden": "true" }, ...bars);
}

// The least of 1, 2, 2.5, 5 times a power of ten that is not less.
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= value * 0.999);
}
