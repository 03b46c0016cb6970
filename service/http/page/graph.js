// The graph of a plan: layers from left to right; only what is in view is drawn.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { countsOf, layOut } from "./layers.js";
import { classOf, glyphOf, TASK_STATUSES } from "./statuses.js";

const BOX = { width: 168, height: 38 };
const STEP = { x: 226, y: 52 };
const MARGIN = 16;
const MOST_EDGES = 1_500;

/** @typedef {import("./types.js").Task} Task */
/** @typedef {import("./layers.js").GraphNode} GraphNode */

/** @param {{tasks: Task[], chosen: string | null, choose: (task: string) => void}} properties */
export function Graph({ tasks, chosen, choose }) {
  const [opened, setOpened] = useState(/** @type {Set<string>} */ (new Set()));
  const shape = useMemo(() => tasks.map((task) => `${task.task_id}:${task.depends_on}`).join("|"), [tasks]);
  const layout = useMemo(() => layOut(tasks, opened), [shape, opened]);
  const now = useMemo(() => new Map(tasks.map((task) => [task.task_id, task])), [tasks]);
  const [view, scroller] = useView();
  const width = layout.layers * STEP.x + MARGIN;
  const height = layout.rows * STEP.y + MARGIN * 2;
  const seen = layout.nodes.filter((node) => inView(node, view));
  const near = new Set(seen.map((node) => node.key));
  const edges = edgesOf(layout, near);
  const chosenKey = layout.nodes.find((node) => node.tasks.some((task) => task.task_id === chosen))?.key;
  const open = (/** @type {string} */ key) => setOpened((before) => new Set(before).add(key));
  const chooser = useRef(choose);
  chooser.current = choose;
  const drawn = useMemo(() => drawing(now, chosenKey, (task) => chooser.current(task), open), [now, layout, chosenKey]);
  return html`<div>
    <div class="row soft">
      <span>${tasks.length} ${tasks.length === 1 ? "task" : "tasks"} in ${layout.layers} ${layout.layers === 1 ? "layer" : "layers"}</span>
      ${opened.size > 0 && html`<button class="link" onClick=${() => setOpened(new Set())}>close ${opened.size} stacks</button>`}
    </div>
    <div class="graph" ref=${scroller} tabindex="0" role="region" aria-label="Graph of the plan">
      <svg width=${width} height=${height}>
        ${edges.map(([from, to]) => drawn.edge(from, to))}
        ${seen.map((node) => drawn.box(node))}
      </svg>
    </div>
  </div>`;
}

/**
 * Draws each node and edge once; what stays in view while it scrolls is not compared again.
 * @param {Map<string, Task>} now
 * @param {string | undefined} chosenKey
 * @param {(task: string) => void} choose
 * @param {(key: string) => void} open
 */
function drawing(now, chosenKey, choose, open) {
  /** @type {Map<string, any>} */
  const done = new Map();
  const once = (/** @type {string} */ key, /** @type {() => any} */ make) => {
    if (!done.has(key)) done.set(key, make());
    return done.get(key);
  };
  return {
    box: (/** @type {GraphNode} */ node) => once(node.key, () => html`<${Box} key=${node.key} node=${node} now=${now} chosen=${node.key === chosenKey} choose=${choose} open=${open} />`),
    edge: (/** @type {GraphNode} */ from, /** @type {GraphNode} */ to) => {
      const key = `${from.key}>${to.key}`;
      const near = from.key === chosenKey || to.key === chosenKey;
      return once(key, () => html`<path key=${key} class="edge ${near ? "is-near" : ""}" d=${curve(from, to)} />`);
    },
  };
}

/** @param {{node: GraphNode, now: Map<string, Task>, chosen: boolean, choose: (task: string) => void, open: (key: string) => void}} properties */
function Box({ node, now, chosen, choose, open }) {
  const tasks = node.tasks.map((task) => now.get(task.task_id) ?? task);
  const stack = tasks.length > 1;
  const counts = countsOf(tasks);
  const status = TASK_STATUSES.find((each) => counts[each]) ?? "PENDING";
  const worst = counts.FAILED ? "FAILED" : status;
  const name = stack ? `${tasks.length} × ${tasks[0].kind}` : tasks[0].task_id;
  const second = stack
    ? TASK_STATUSES.filter((each) => counts[each]).map((each) => `${glyphOf(each)}${counts[each]}`).join(" ")
    : `${tasks[0].kind}${tasks[0].attempt > 1 ? ` · attempt ${tasks[0].attempt}` : ""}`;
  const act = () => (stack ? open(node.key) : choose(tasks[0].task_id));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      act();
    }
  };
  const label = `${name} ${second}: ${stack ? "open the stack" : worst}`;
  return html`<g class="node ${classOf(worst)} ${stack ? "is-stack" : ""} ${chosen ? "is-chosen" : ""}"
    transform="translate(${x(node)} ${y(node)})" role="button" tabindex="0"
    onClick=${act} onKeyDown=${onKey} data-node=${node.key}>
    ${stack && html`<rect class="behind" x="5" y="5" width=${BOX.width} height=${BOX.height} rx="7" />`}
    <rect class="box" width=${BOX.width} height=${BOX.height} rx=${tasks[0].type === "critic" ? 18 : 7} />
    <text class="glyph" x="10" y="24" aria-hidden="true">${glyphOf(worst)}</text>
    <text x="28" y="16">${cut(name)}</text><text class="second" x="28" y="31">${cut(second)}</text>
    <title>${label}</title>
  </g>`;
}

/** @param {string} text */
const cut = (text) => (text.length > 19 ? `${text.slice(0, 18)}…` : text);
/** @param {GraphNode} node */
const x = (node) => MARGIN + node.layer * STEP.x;
/** @param {GraphNode} node */
const y = (node) => MARGIN + node.row * STEP.y;

/** @param {GraphNode} node @param {{left: number, top: number, right: number, bottom: number}} view */
function inView(node, view) {
  return (
    x(node) + BOX.width >= view.left && x(node) <= view.right &&
    y(node) + BOX.height >= view.top && y(node) <= view.bottom
  );
}

/** @param {import("./layers.js").Layout} layout @param {Set<string>} near */
function edgesOf(layout, near) {
  /** @type {[GraphNode, GraphNode][]} */
  const edges = [];
  for (const node of layout.nodes) {
    for (const key of node.from) {
      if (!near.has(node.key) && !near.has(key)) continue;
      const from = layout.byKey.get(key);
      if (from) edges.push([from, node]);
      if (edges.length >= MOST_EDGES) return edges;
    }
  }
  return edges;
}

/** @param {GraphNode} from @param {GraphNode} to */
function curve(from, to) {
  const [x1, y1] = [x(from) + BOX.width, y(from) + BOX.height / 2];
  const [x2, y2] = [x(to), y(to) + BOX.height / 2];
  const bend = Math.max((x2 - x1) / 2, 24);
  return `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

/** @param {number} from @param {number} size @returns {[number, number]} */
function span(from, size) {
  const step = Math.max(size / 4, 1);
  const first = Math.floor(from / step);
  return [(first - 1) * step, (first + 6) * step];
}

/**
 * The part of a scrolled element that is drawn: what is seen and a margin of a quarter around
 * it, in steps of that margin, so that most frames of scrolling draw nothing anew.
 */
function useView() {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const [view, setView] = useState({ left: 0, top: 0, right: 2000, bottom: 1200 });
  useEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    let frame = 0;
    const look = () => {
      frame = 0;
      const [left, right] = span(element.scrollLeft, element.clientWidth);
      const [top, bottom] = span(element.scrollTop, element.clientHeight);
      setView((before) => (before.left === left && before.top === top && before.right === right && before.bottom === bottom ? before : { left, top, right, bottom }));
    };
    const later = () => {
      frame ||= requestAnimationFrame(look);
    };
    look();
    element.addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    return () => {
      element.removeEventListener("scroll", later);
      removeEventListener("resize", later);
      cancelAnimationFrame(frame);
    };
  }, []);
  return /** @type {const} */ ([view, scroller]);
}
