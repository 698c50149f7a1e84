//! devport as its users see it: the built program, real processes, a real tmux.
