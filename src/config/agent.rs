//! The coding agent that runs a command, from the variables by which agents mark their commands.
//!
//! Sources, as of 2026-11: the packages am-i-vibing 0.5, `@vercel/detect-agent` 1.2, std-env 4 and agent-detector 2, and
//! the crate is-ai-agent 0.5. Not here: variables that an editor sets in its users' terminals too, such as
//! `CURSOR_TRACE_ID`.

use std::ffi::OsStr;

/// Variables that only one agent sets, with its name. The first that is set counts.
const MARKERS: [(&str, &str); 41] = [
    ("CLAUDECODE", "claude"),
    ("CLAUDE_CODE", "claude"),
    ("CLAUDE_CODE_SESSION_ID", "claude"),
    ("CLAUDE_CODE_ENTRYPOINT", "claude"),
    ("CODEX_THREAD_ID", "codex"),
    ("CODEX_SANDBOX", "codex"),
    ("CODEX_SANDBOX_NETWORK_DISABLED", "codex"),
    ("CODEX_CI", "codex"),
    ("CURSOR_AGENT", "cursor"),
    ("CURSOR_SANDBOX", "cursor"),
    ("GEMINI_CLI", "gemini"),
    ("COPILOT_CLI", "copilot"),
    ("COPILOT_AGENT", "copilot"),
    ("COPILOT_AGENT_JOB_ID", "copilot"),
    ("COPILOT_AGENT_SESSION_ID", "copilot"),
    ("OPENCODE", "opencode"),
    ("OPENCODE_CALLER", "opencode"),
    ("OPENCODE_CLIENT", "opencode"),
    ("OPENCODE_BIN_PATH", "opencode"),
    ("AMP_CURRENT_THREAD_ID", "amp"),
    ("ANTIGRAVITY_AGENT", "antigravity"),
    ("AUGMENT_AGENT", "augment"),
    ("CLINE_ACTIVE", "cline"),
    ("CLINE_TASK_ID", "cline"),
    ("CODEBUDDY", "codebuddy"),
    ("CODEBUDDY_SESSION_ID", "codebuddy"),
    ("CRUSH", "crush"),
    ("FIREBENDER_TERMINAL", "firebender"),
    ("GOOSE_TERMINAL", "goose"),
    ("GROK_AGENT", "grok"),
    ("GROK_SESSION_ID", "grok"),
    ("IFLOW_CLI", "iflow"),
    ("KIRO_AGENT_PATH", "kiro"),
    ("OZ_RUN_ID", "oz"),
    ("PI_CODING_AGENT", "pi"),
    ("QWEN_CODE", "qwen"),
    ("ROO_CODE_TASK_ID", "roo"),
    ("TRAE_AI_SHELL_ID", "trae"),
    ("VECLI_DIR", "vecli"),
    ("VECLI_SANDBOX", "vecli"),
    ("CURSOR_EXTENSION_HOST_ROLE", "cursor"),
];
/// Variables whose value names the agent, such as `claude-code_2-1-0_agent`.
const NAMING: [&str; 2] = ["AI_AGENT", "AGENT"];
/// Values of those that only say whether there is an agent.
const SWITCHES: [&str; 4] = ["1", "0", "true", "false"];
/// The most characters of a name.
const LONGEST: usize = 40;

/// Returns the name of the agent that runs the command, in lower case; `None` if no variable names one. `get` returns a
/// variable of the command's environment, or `None` if it is unset or empty.
pub(super) fn agent<'a>(get: impl Fn(&str) -> Option<&'a OsStr>) -> Option<String> {
    let marked = MARKERS.iter().find(|(variable, _)| get(variable).is_some());
    marked
        .map(|(_, agent)| (*agent).to_owned())
        .or_else(|| NAMING.iter().find_map(|variable| named(get(variable)?.to_str()?)))
}

/// Returns the agent that a value names: its known name, or else the first word; `None` if it names none.
fn named(value: &str) -> Option<String> {
    let value = value.to_ascii_lowercase();
    let word: String = value.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(LONGEST).collect();
    if word.is_empty() || SWITCHES.contains(&word.as_str()) {
        return None;
    }
    let known = MARKERS.iter().map(|(_, agent)| *agent).find(|agent| word.split('-').next() == Some(agent));
    Some(known.map_or(word, str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_named_by_its_marker_or_else_by_a_value() {
        let agent = |variables: &[(&str, &'static str)]| {
            agent(|name| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsStr::new(*value)))
        };
        for (variables, expected) in [
            (&[("CLAUDECODE", "1")][..], Some("claude")),
            (&[("CODEX_THREAD_ID", "x"), ("AI_AGENT", "other")], Some("codex")),
            (&[("CURSOR_AGENT", "1")], Some("cursor")),
            (&[("GEMINI_CLI", "1")], Some("gemini")),
            (&[("COPILOT_CLI", "1")], Some("copilot")),
            (&[("OPENCODE", "1"), ("AGENT", "1")], Some("opencode")),
            (&[("AI_AGENT", "claude-code_2-1-0_agent")], Some("claude")),
            (&[("AI_AGENT", "New-Agent/1.0")], Some("new-agent")),
            (&[("AGENT", "amp")], Some("amp")),
            (&[("AGENT", "1")], None),
            (&[("AI_AGENT", "\u{1b}[31m")], None),
            // Also set for people who type into the editor's terminal.
            (&[("CURSOR_TRACE_ID", "x"), ("TERM_PROGRAM", "vscode")], None),
            (&[], None),
        ] {
            assert_eq!(agent(variables).as_deref(), expected, "{variables:?}");
        }
    }
}
