// Where each task of a plan stands in its graph: layers from left to right. Pure.
//
// Tasks that depend on the same tasks and are needed by the same tasks are one stack, so that a
// fan-out of 5,000 is one node. Layers are the longest way from a root; within a layer nodes follow
// the middle of what they depend on, so that edges seldom cross.

/** @typedef {import("./types.js").Task} Task */
/** @typedef {{key: string, tasks: Task[], layer: number, row: number, from: string[]}} GraphNode */
/** @typedef {{nodes: GraphNode[], byKey: Map<string, GraphNode>, layers: number, rows: number}} Layout */

export const STACK_AT = 4; // so many alike tasks are one stack

/**
 * @param {Task[]} tasks
 * @param {Set<string>} [opened] keys of stacks that are shown task by task
 * @returns {Layout}
 */
export function layOut(tasks, opened = new Set()) {
  const groups = grouped(tasks, opened);
  const keyOf = new Map();
  for (const [key, members] of groups) for (const task of members) keyOf.set(task.task_id, key);

  /** @type {Map<string, GraphNode>} */
  const byKey = new Map();
  for (const [key, members] of groups) {
    const from = new Set(members[0].depends_on.map((id) => keyOf.get(id)).filter((each) => each && each !== key));
    byKey.set(key, { key, tasks: members, layer: -1, row: 0, from: [...from] });
  }
  const order = layered(byKey);
  const layers = byLayer(order);
  place(layers, byKey);
  return {
    nodes: order,
    byKey,
    layers: layers.length,
    rows: Math.max(0, ...layers.map((layer) => layer.length)),
  };
}

/**
 * @param {Task[]} tasks
 * @param {Set<string>} opened
 */
function grouped(tasks, opened) {
  /** @type {Map<string, string[]>} */
  const neededBy = new Map();
  for (const task of tasks) {
    for (const id of task.depends_on) {
      const list = neededBy.get(id);
      if (list) list.push(task.task_id);
      else neededBy.set(id, [task.task_id]);
    }
  }
  /** @type {Map<string, Task[]>} */
  const alike = new Map();
  for (const task of tasks) {
    const shape = JSON.stringify([
      task.kind, task.type, [...task.depends_on].sort(), neededBy.get(task.task_id) ?? [],
    ]);
    const list = alike.get(shape);
    if (list) list.push(task);
    else alike.set(shape, [task]);
  }
  /** @type {Map<string, Task[]>} */
  const groups = new Map();
  for (const members of alike.values()) {
    const key = `stack:${members[0].task_id}`;
    if (members.length >= STACK_AT && !opened.has(key)) groups.set(key, members);
    else for (const task of members) groups.set(task.task_id, [task]);
  }
  return groups;
}

/**
 * Give each node its layer; answers the nodes in an order in which dependencies come first.
 * @param {Map<string, GraphNode>} byKey
 */
function layered(byKey) {
  /** @type {Map<string, number>} */
  const waiting = new Map();
  /** @type {Map<string, GraphNode[]>} */
  const needs = new Map();
  for (const node of byKey.values()) {
    waiting.set(node.key, node.from.length);
    for (const key of node.from) {
      const list = needs.get(key);
      if (list) list.push(node);
      else needs.set(key, [node]);
    }
  }
  const order = [...byKey.values()].filter((node) => node.from.length === 0);
  for (const node of order) node.layer = 0;
  for (let i = 0; i < order.length; i += 1) {
    for (const next of needs.get(order[i].key) ?? []) {
      next.layer = Math.max(next.layer, order[i].layer + 1);
      const left = /** @type {number} */ (waiting.get(next.key)) - 1;
      waiting.set(next.key, left);
      if (left === 0) order.push(next);
    }
  }
  return order;
}

/** @param {GraphNode[]} order */
function byLayer(order) {
  /** @type {GraphNode[][]} */
  const layers = [];
  for (const node of order) (layers[node.layer] ??= []).push(node);
  return layers;
}

/**
 * @param {GraphNode[][]} layers
 * @param {Map<string, GraphNode>} byKey
 */
function place(layers, byKey) {
  for (const layer of layers) {
    const middles = new Map(layer.map((node, index) => [node, middleOf(node, byKey, index)]));
    layer.sort((a, b) => /** @type {number} */ (middles.get(a)) - /** @type {number} */ (middles.get(b)));
    layer.forEach((node, index) => {
      node.row = index;
    });
  }
}

/**
 * @param {GraphNode} node
 * @param {Map<string, GraphNode>} byKey
 * @param {number} own
 */
function middleOf(node, byKey, own) {
  if (!node.from.length) return own;
  const rows = node.from.map((key) => byKey.get(key)?.row ?? 0);
  return rows.reduce((sum, row) => sum + row, 0) / rows.length;
}

/**
 * How many tasks of a node are in each status.
 * @param {Task[]} tasks
 */
export function countsOf(tasks) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const task of tasks) counts[task.status] = (counts[task.status] ?? 0) + 1;
  return counts;
}
