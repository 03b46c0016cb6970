// Four numbers and their last hour.

import { html } from "./vendor/preact.js";
import { duration, short } from "./clock.js";

const WIDTH = 120;
const HEIGHT = 32;

/** @param {{hour: any}} properties */
export function Numbers({ hour }) {
  if (!hour) return html`<section class="numbers" aria-busy="true"></section>`;
  const { now, minutes } = hour;
  const sum = (/** @type {string} */ name) => minutes.reduce((/** @type {number} */ total, /** @type {any} */ each) => total + each[name], 0);
  const series = (/** @type {string} */ name) => minutes.map((/** @type {any} */ each) => each[name]);
  const failed = sum("failed");
  return html`<section class="numbers" aria-label="The last hour">
    <${Number_} name="running" value=${short(now.running)} note="tasks now" values=${series("running")} />
    <${Number_} name="waiting" value=${short(now.waiting)} values=${series("waiting")}
      note=${now.waiting ? `the oldest for ${duration(now.oldest_wait_s)}` : "none waits"} />
    <${Number_} name="failed" value=${short(failed)} note="tasks in the last hour" values=${series("failed")} bad=${failed > 0} />
    <${Number_} name="tokens" value=${short(sum("tokens"))} note="in the last hour" values=${series("tokens")} />
  </section>`;
}

/** @param {{name: string, value: string, note: string, values: number[], bad?: boolean}} properties */
function Number_({ name, value, note, values, bad = false }) {
  const { area, stroke } = spark(values);
  return html`<div class="card number ${bad ? "is-bad" : ""}">
    <span class="soft">${name}</span><b>${value}</b><span class="soft">${note}</span>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
      aria-label="${name} per minute, at most ${Math.max(0, ...values)}">
      <path class="area" d=${area} /><path class="stroke" d=${stroke} />
    </svg>
  </div>`;
}

/**
 * The paths of a line through values, the newest at the right end of an hour.
 * @param {number[]} values
 */
export function spark(values) {
  const most = Math.max(1, ...values);
  const step = WIDTH / 59;
  const first = WIDTH - (values.length - 1) * step;
  const points = values.map((value, n) => [first + n * step, HEIGHT - (value / most) * HEIGHT]);
  if (points.length === 1) points.unshift([WIDTH - step, points[0][1]]);
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" L");
  if (!line) return { area: "", stroke: "" };
  return {
    stroke: `M${line}`,
    area: `M${points[0][0].toFixed(1)},${HEIGHT} L${line} L${WIDTH},${HEIGHT} Z`,
  };
}
