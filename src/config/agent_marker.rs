//! The variables by which coding agents mark the commands that they run.
//!
//! A service is not run by the agent whose command starts it: it outlives that command, and a restart from a person's
//! shell must give the same service. Some programs behave differently if they see a marker: `astro dev` starts a server
//! in the background and ends.
//!
//! Sources, as of 2026-11: the packages am-i-vibing 0.5, `@vercel/detect-agent` 1.2, std-env 4 and agent-detector 2, the
//! crates is-ai-agent 0.5 and mise-agent-env 2026.10. Not here: settings and credentials of agents, which a service may
//! need itself (`COPILOT_GITHUB_TOKEN`, `GOOSE_PROVIDER`, `AIDER_API_KEY`), and `REPL_ID`, which names a machine.

/// Variables that say that an agent runs the command, which agent, or in which of its sessions.
const MARKERS: [&str; 55] = [
    "AGENT",
    "AGENT_CONTEXT_OUT",
    "AGENT_DISPLAY_OUT",
    "AI_AGENT",
    "AMP_CURRENT_THREAD_ID",
    "ANTIGRAVITY_AGENT",
    "ANTIGRAVITY_PROJECT_ID",
    "AUGMENT_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE",
    "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_IS_COWORK",
    "CLAUDE_CODE_SESSION_ID",
    "CLINE_ACTIVE",
    "CLINE_TASK_ID",
    "CODEBUDDY",
    "CODEBUDDY_PROJECT_DIR",
    "CODEBUDDY_SESSION_ID",
    "CODEX_CI",
    "CODEX_SANDBOX",
    "CODEX_SANDBOX_NETWORK_DISABLED",
    "CODEX_THREAD_ID",
    "COPILOT_AGENT",
    "COPILOT_AGENT_JOB_ID",
    "COPILOT_AGENT_SESSION_ID",
    "COPILOT_CLI",
    "CRUSH",
    "CURSOR_AGENT",
    "CURSOR_EXTENSION_HOST_ROLE",
    "CURSOR_SANDBOX",
    "CURSOR_TRACE_ID",
    "FIREBENDER_TERMINAL",
    "GEMINI_CLI",
    "GOOSE_TERMINAL",
    "GROK_AGENT",
    "GROK_SESSION_ID",
    "IFLOW_CLI",
    "KIRO_AGENT_PATH",
    "OPENCODE",
    "OPENCODE_APP_INFO",
    "OPENCODE_BIN_PATH",
    "OPENCODE_CALLER",
    "OPENCODE_CLIENT",
    "OPENCODE_MODES",
    "OPENCODE_PID",
    "OPENCODE_SERVER",
    "OZ_RUN_ID",
    "PI_CODING_AGENT",
    "QWEN_CODE",
    "ROO_CODE_TASK_ID",
    "TRAE_AI_SHELL_ID",
    "VECLI_DIR",
    "VECLI_SANDBOX",
];

/// Returns whether a variable is the marker of a coding agent.
pub(super) fn is_agent_marker(name: &str) -> bool {
    MARKERS.contains(&name)
}
