//! The variables by which coding agents mark the commands that they run.
//!
//! A service is not run by the agent whose command starts it: it outlives that command, and a restart from a person's
//! shell must give the same service. Some programs behave differently if they see a marker: `astro dev` starts a server
//! in the background and ends.
//!
//! Sources, as of 2026-11: the packages am-i-vibing 0.5, `@vercel/detect-agent` 1.2, std-env 4 and agent-detector 2, the
//! crates is-ai-agent 0.5 and mise-agent-env 2026.10. Not here: settings and credentials of agents, which a service may
//! need itself (`COPILOT_GITHUB_TOKEN`, `GOOSE_PROVIDER`, `AIDER_API_KEY`), and `REPL_ID`, which names a machine.

use std::ffi::OsStr;

/// Variables that say that an agent runs the command, which agent, or in which of its sessions. Each has the name of the
/// agent; `None` if several agents set it, or an editor sets it for the people who use its terminal too.
const MARKERS: [(&str, Option<&str>); 55] = [
    ("AGENT", None),
    ("AGENT_CONTEXT_OUT", None),
    ("AGENT_DISPLAY_OUT", None),
    ("AI_AGENT", None),
    ("AMP_CURRENT_THREAD_ID", Some("amp")),
    ("ANTIGRAVITY_AGENT", Some("antigravity")),
    ("ANTIGRAVITY_PROJECT_ID", Some("antigravity")),
    ("AUGMENT_AGENT", Some("augment")),
    ("CLAUDECODE", Some("claude")),
    ("CLAUDE_CODE", Some("claude")),
    ("CLAUDE_CODE_CHILD_SESSION", Some("claude")),
    ("CLAUDE_CODE_ENTRYPOINT", Some("claude")),
    ("CLAUDE_CODE_EXECPATH", Some("claude")),
    ("CLAUDE_CODE_IS_COWORK", Some("claude")),
    ("CLAUDE_CODE_SESSION_ID", Some("claude")),
    ("CLINE_ACTIVE", Some("cline")),
    ("CLINE_TASK_ID", Some("cline")),
    ("CODEBUDDY", Some("codebuddy")),
    ("CODEBUDDY_PROJECT_DIR", Some("codebuddy")),
    ("CODEBUDDY_SESSION_ID", Some("codebuddy")),
    ("CODEX_CI", Some("codex")),
    ("CODEX_SANDBOX", Some("codex")),
    ("CODEX_SANDBOX_NETWORK_DISABLED", Some("codex")),
    ("CODEX_THREAD_ID", Some("codex")),
    ("COPILOT_AGENT", Some("copilot")),
    ("COPILOT_AGENT_JOB_ID", Some("copilot")),
    ("COPILOT_AGENT_SESSION_ID", Some("copilot")),
    ("COPILOT_CLI", Some("copilot")),
    ("CRUSH", Some("crush")),
    ("CURSOR_AGENT", Some("cursor")),
    ("CURSOR_EXTENSION_HOST_ROLE", None),
    ("CURSOR_SANDBOX", Some("cursor")),
    ("CURSOR_TRACE_ID", None),
    ("FIREBENDER_TERMINAL", Some("firebender")),
    ("GEMINI_CLI", Some("gemini")),
    ("GOOSE_TERMINAL", Some("goose")),
    ("GROK_AGENT", Some("grok")),
    ("GROK_SESSION_ID", Some("grok")),
    ("IFLOW_CLI", Some("iflow")),
    ("KIRO_AGENT_PATH", Some("kiro")),
    ("OPENCODE", Some("opencode")),
    ("OPENCODE_APP_INFO", Some("opencode")),
    ("OPENCODE_BIN_PATH", Some("opencode")),
    ("OPENCODE_CALLER", Some("opencode")),
    ("OPENCODE_CLIENT", Some("opencode")),
    ("OPENCODE_MODES", Some("opencode")),
    ("OPENCODE_PID", Some("opencode")),
    ("OPENCODE_SERVER", Some("opencode")),
    ("OZ_RUN_ID", Some("oz")),
    ("PI_CODING_AGENT", Some("pi")),
    ("QWEN_CODE", Some("qwen")),
    ("ROO_CODE_TASK_ID", Some("roo")),
    ("TRAE_AI_SHELL_ID", Some("trae")),
    ("VECLI_DIR", Some("vecli")),
    ("VECLI_SANDBOX", Some("vecli")),
];
/// Variables whose value names the agent, such as `claude-code_2-1-0_agent`.
const NAMING: [&str; 2] = ["AI_AGENT", "AGENT"];
/// Values of those that only say whether there is an agent.
const SWITCHES: [&str; 4] = ["1", "0", "true", "false"];
/// The most characters of a name: it is a column of `ls --wide`.
const LONGEST: usize = 40;

/// Returns whether a variable is the marker of a coding agent.
pub(super) fn is_agent_marker(name: &str) -> bool {
    MARKERS.iter().any(|(marker, _)| *marker == name)
}

/// Returns the name of the agent that runs the command, in lower case; `None` if no variable names one. `get` returns a
/// variable of the command's environment, or `None` if it is unset or empty.
pub(super) fn agent<'a>(get: impl Fn(&str) -> Option<&'a OsStr>) -> Option<String> {
    let marked = MARKERS.iter().find_map(|(variable, agent)| agent.filter(|_| get(variable).is_some()));
    marked.map(str::to_owned).or_else(|| NAMING.iter().find_map(|variable| named(get(variable)?.to_str()?)))
}

/// Returns the agent that a value names: its known name, or else the first word; `None` if it names none.
fn named(value: &str) -> Option<String> {
    let value = value.to_ascii_lowercase();
    let word: String = value.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(LONGEST).collect();
    if word.is_empty() || SWITCHES.contains(&word.as_str()) {
        return None;
    }
    let known = MARKERS.iter().filter_map(|(_, agent)| *agent).find(|agent| word.split('-').next() == Some(agent));
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
