// The parts of htm/preact that the page uses, as far as types help here.
export type Node = unknown;
export function html(strings: TemplateStringsArray, ...values: unknown[]): Node;
export function render(node: Node, parent: Element): void;
export function useState<T>(initial: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useEffect(effect: () => void | (() => void), inputs?: unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: unknown[]): void;
export function useMemo<T>(make: () => T, inputs: unknown[]): T;
export function useRef<T>(initial: T): { current: T };
export function useCallback<T>(callback: T, inputs: unknown[]): T;
export function useErrorBoundary(callback?: (error: Error) => void): [Error | undefined, () => void];
