// Evaluated before a plugin in JavaScript: where the SDK finds the host's log, and the `console` that its runtime lacks.
import log from "pelton:plugin/log@0.1.0";

const shown = (value) => {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value}\n${value.stack ?? ""}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
};

const line =
  (level) =>
  (...values) =>
    log.write(level, values.map(shown).join(" "));

globalThis.peltonLog = log;
globalThis.console ??= {
  debug: line("debug"),
  log: line("info"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
};
