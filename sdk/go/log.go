package pelton

// Debug writes a line for the author of the plugin to `pelton pipeline logs`. A call may write 100 lines of 1 KiB; what is
// over is dropped and counted. Without pelton, as in unit tests, lines go to standard error.
func Debug(text string) { write(0, text) }

// Info writes a line of normal progress.
func Info(text string) { write(1, text) }

// Warn writes a line about something odd that was dealt with.
func Warn(text string) { write(2, text) }

// Error writes a line about something that failed.
func Error(text string) { write(3, text) }
