// Lines for `pelton pipeline logs`. A call may write 100 lines of 1 KiB; what is over is dropped and counted. Without
// pelton, as in unit tests, lines go to standard error.

// For the author of the plugin.
export const debug = (text) => write("debug", text);

// Normal progress.
export const info = (text) => write("info", text);

// Something was odd, and was dealt with.
export const warn = (text) => write("warn", text);

// Something failed.
export const error = (text) => write("error", text);

function write(level, text) {
  if (globalThis.peltonLog) globalThis.peltonLog.write(level, String(text));
  else console.error(`${level}: ${text}`);
}
