//! Dev servers that refuse host names that they do not know, and how each is made to accept the one on the tailnet.

use crate::config::{VITE_HOSTS, allows_host};
use crate::os::process::{self, ProcessIdentity};
use crate::registry::{Registry, Reservation};

/// A dev server that checks host names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DevServer {
    /// Responds with 403 to hosts that are not in `server.allowedHosts`. Source: <https://vite.dev/config/server-options>.
    Vite,
    /// Refuses requests for its development resources from origins that are not in `allowedDevOrigins`. Source:
    /// <https://nextjs.org/docs/app/api-reference/config/next-config-js/allowedDevOrigins>.
    Next,
}

impl DevServer {
    /// Recognizes a command line; `None` if it is of neither server.
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word)).peekable();
        while let Some(word) = words.next() {
            match word {
                "vite" | "vite.js" => return Some(Self::Vite),
                // The title of Next's own process.
                "next-server" => return Some(Self::Next),
                // Without a command, `next` is `next dev`. `next start` has no such check.
                "next" if words.peek().is_none_or(|next| *next == "dev" || next.starts_with('-')) => {
                    return Some(Self::Next);
                }
                _ => {}
            }
        }
        None
    }
}

/// Returns what the user has to do so that a published service accepts requests to its name on the tailnet; `None` if
/// devport knows of nothing.
pub(crate) fn advice(registry: &Registry, reservation: &Reservation) -> Option<String> {
    let host = registry.tailnet_host(reservation)?;
    let service = reservation.name();
    let run = registry.run_state(&reservation.hash).ok().flatten();
    let child = run.as_ref().and_then(|run| run.child.as_ref()).filter(|child| child.is_alive().unwrap_or(false));
    let tree = match (&run, child) {
        (Some(run), Some(_)) => registry.descendants(&reservation.hash, run.supervisor.pid).map(|tree| tree.living),
        _ => Ok(Vec::new()),
    };
    // The advice is an extra: processes that cannot be listed count as none.
    let lines = tree.unwrap_or_default().into_iter().filter_map(|member| process::command_line(member.pid));
    match std::iter::once(reservation.cmd.join(" ")).chain(lines).find_map(|line| DevServer::of(&line))? {
        DevServer::Vite if child.is_some_and(|child| !accepts(child, &host)) => {
            let restart = format!("devport restart {}", shell_words::quote(service));
            Some(format!("{service} is Vite, which refuses the host {host} until it is started again: `{restart}`"))
        }
        DevServer::Vite => None,
        DevServer::Next => Some(format!(
            "{service} is Next.js, which may refuse the origin {host}: add this line to next.config: \
             allowedDevOrigins: ['{host}'],"
        )),
    }
}

/// Returns whether a child was started with a host name in the variable that Vite reads.
fn accepts(child: &ProcessIdentity, host: &str) -> bool {
    let [hosts] = process::environment_values(child.pid, [VITE_HOSTS]).unwrap_or_default();
    allows_host(&String::from_utf8_lossy(&hosts.unwrap_or_default()), host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_servers_are_recognized_by_their_programs() {
        for (line, server) in [
            ("vite --port $PORT", Some(DevServer::Vite)),
            ("node /p/node_modules/.bin/vite", Some(DevServer::Vite)),
            ("node /p/node_modules/vite/bin/vite.js --host", Some(DevServer::Vite)),
            ("npx next dev -p 3000", Some(DevServer::Next)),
            ("/p/node_modules/.bin/next", Some(DevServer::Next)),
            ("next-server (v16.0.1)", Some(DevServer::Next)),
            ("next start", None),
            ("node invite.js", None),
            ("npm run dev", None),
            ("", None),
        ] {
            assert_eq!(DevServer::of(line), server, "{line}");
        }
    }
}
