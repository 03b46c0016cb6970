// Keyboard: one table of keys per screen; never while somebody types.

/** @type {Map<string, () => void>} */
const actions = new Map();

/**
 * Bind keys while a screen is shown; answers what unbinds them.
 * @param {Record<string, () => void>} wanted
 */
export function bindKeys(wanted) {
  for (const [key, action] of Object.entries(wanted)) actions.set(key, action);
  return () => {
    for (const [key, action] of Object.entries(wanted)) {
      if (actions.get(key) === action) actions.delete(key);
    }
  };
}

addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  const types = target.closest?.("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (types) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const action = actions.get(event.key);
  if (action) {
    event.preventDefault();
    action();
  }
});
