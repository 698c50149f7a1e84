//! `devport ls`: lists services.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::args::Ls;
use crate::cli::context::Context;
use crate::cli::output::{json_layout, note, report, write_output};
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::os::clock;
use crate::os::terminal::WindowSize;
use crate::project::{Place, Site};
use crate::view::{self, Group, ServiceView, Status, TableStyle};

/// The time between refreshes by `--watch`: a period in whole seconds (the column UP) changes no faster.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The services of one checkout.
struct CheckoutGroup<'a> {
    root: PathBuf,
    /// Whether it is the one of the current directory.
    is_here: bool,
    /// Sorted: first the services that run, then the others, each by port.
    views: Vec<&'a ServiceView>,
}

/// Executes `devport ls`. Records that cannot be used are reported on standard error, and the others are listed.
///
/// # Errors
/// If the state directory cannot be read, or [`Error::SomeUnread`] if a record cannot.
pub(super) fn execute(context: &Context, arguments: &Ls) -> Result<()> {
    let place = context.place();
    if arguments.here && place.is_none() {
        context.cwd()?;
    }
    if arguments.watch {
        return watch(context, place.as_ref(), arguments);
    }
    let (views, unusable) = fetch(context, arguments)?;
    let checkouts = by_checkout(place.as_ref(), &views, arguments.here);
    for error in &unusable {
        report("ls", error);
    }
    if context.output.wants_table() {
        write_output(table(&checkouts, place.as_ref(), context.output.table_style(), arguments).as_bytes())?;
        note_lost(&checkouts);
    } else {
        let views: Vec<&ServiceView> = checkouts.into_iter().flat_map(|checkout| checkout.views).collect();
        write_output(view::services(&views, json_layout())?.as_bytes())?;
    }
    // A corrupt record is no service. One that could not be read is probably fine, so the list is incomplete.
    let missing = unusable.iter().filter(|error| matches!(error, Error::Io { .. })).count();
    if missing > 0 {
        return Err(Error::SomeUnread { missing });
    }
    Ok(())
}

/// Returns the current services, and one error for each record that cannot be used.
fn fetch(context: &Context, arguments: &Ls) -> Result<(Vec<ServiceView>, Vec<Error>)> {
    let overview = context.overview();
    let (mut views, unusable) = overview.all()?;
    if arguments.active {
        views.retain(|view| view.status == Status::Running);
    }
    if arguments.wide {
        overview.add_usage(&mut views);
    }
    Ok((views, unusable))
}

/// Groups services by checkout: this one first, then those with a living service. `only_here` leaves out all but this
/// one.
fn by_checkout<'a>(place: Option<&Place>, views: &'a [ServiceView], only_here: bool) -> Vec<CheckoutGroup<'a>> {
    let mut checkouts: Vec<CheckoutGroup<'a>> = Vec::new();
    let mut by_root: HashMap<PathBuf, usize> = HashMap::new();
    // A checkout has many services, and each comparison of two directories reads their metadata.
    let mut known: HashMap<(PathBuf, Option<PathBuf>), usize> = HashMap::new();
    let mut last = None;
    for view in views {
        let own = view.root.as_ref().unwrap_or(&view.cwd);
        // Services of one directory mostly follow each other, and a path takes long to hash.
        let is_same = |other: &&ServiceView| {
            let theirs = other.root.as_ref().unwrap_or(&other.cwd);
            theirs.as_os_str() == own.as_os_str() && other.file == view.file
        };
        if let Some(index) = last.filter(|index: &usize| checkouts[*index].views.last().is_some_and(is_same)) {
            checkouts[index].views.push(view);
            continue;
        }
        let index = *known.entry((own.clone(), view.file.clone())).or_insert_with(|| {
            let (root, file) = (view.root.as_deref(), view.file.as_deref());
            let site = Site { directory: &view.cwd, file, root, root_id: None };
            let here = place.filter(|place| place.lists(site));
            let root = here.map_or(own.as_path(), Place::root);
            *by_root.entry(root.to_owned()).or_insert_with(|| {
                checkouts.push(CheckoutGroup { root: root.to_owned(), is_here: here.is_some(), views: Vec::new() });
                checkouts.len() - 1
            })
        });
        last = Some(index);
        checkouts[index].views.push(view);
    }
    checkouts.retain(|checkout| checkout.is_here || !only_here);
    let is_alive = |view: &&ServiceView| view.status == Status::Running || view.pid.is_some();
    for checkout in &mut checkouts {
        // By name, so that the services of a stack stand together. Those without a name and a port keep the order of
        // their hashes, in which they come.
        let order = |view: &&'a ServiceView| {
            let key = view.key.as_ref().map(Key::as_str);
            (!is_alive(view), key.is_none(), key, view.port.unwrap_or(u16::MAX))
        };
        checkout.views.sort_by_cached_key(order);
    }
    let order = |checkout: &CheckoutGroup<'_>| (!checkout.is_here, !checkout.views.first().is_some_and(is_alive));
    checkouts.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.root.cmp(&b.root)));
    checkouts
}

/// Formats the list. Checkouts have titles unless every service belongs to this one.
fn table(checkouts: &[CheckoutGroup<'_>], place: Option<&Place>, style: TableStyle, arguments: &Ls) -> String {
    if checkouts.is_empty() {
        let text = match (arguments.here, arguments.active) {
            (true, _) => "no services in this checkout; `devport ls` lists all",
            (false, true) => "no service runs; `devport ls` lists all",
            (false, false) => "no services; `devport start --key api -- npm run dev` starts one",
        };
        return format!("{text}\n");
    }
    let has_titles = checkouts.iter().any(|checkout| !checkout.is_here);
    let title = |checkout: &CheckoutGroup<'_>| {
        let path = place.map_or_else(|| checkout.root.display().to_string(), |place| place.abbreviate(&checkout.root));
        match place.filter(|_| checkout.is_here) {
            Some(place) if place.is_versioned() => format!("{path} (this checkout)"),
            Some(_) => format!("{path} (this directory)"),
            None => path,
        }
    };
    let mut groups = Vec::with_capacity(checkouts.len());
    for checkout in checkouts {
        groups.push(Group { title: has_titles.then(|| title(checkout)), views: checkout.views.clone() });
    }
    view::list(&groups, style, arguments.wide)
}

/// Notes how to remove the listed services whose checkout was deleted. One that was created again can be used.
fn note_lost(checkouts: &[CheckoutGroup<'_>]) {
    let views = checkouts.iter().flat_map(|checkout| &checkout.views);
    match views.filter(|view| view.gone && !view.root.as_ref().unwrap_or(&view.cwd).is_dir()).count() {
        0 => {}
        1 => note("1 of these services has lost its checkout; `devport rm --gone` removes all such services"),
        lost => note(&format!(
            "{lost} of these services have lost their checkout; `devport rm --gone` removes all such services"
        )),
    }
}

/// Shows the list and refreshes it in place. What the terminal showed before stays above it.
fn watch(context: &Context, place: Option<&Place>, arguments: &Ls) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Err(Error::Usage {
            message: "--watch needs a terminal".into(),
            hint: "use `devport ls --json` in a script, or `devport wait`".into(),
        });
    }
    let mut drawn = 0;
    loop {
        let (views, unusable) = fetch(context, arguments)?;
        let checkouts = by_checkout(place, &views, arguments.here);
        let mut text = table(&checkouts, place, context.output.table_style(), arguments);
        if !unusable.is_empty() {
            text += &unusable.len().to_string();
            text += " records cannot be used; `devport ls` names them\n";
        }
        let height = WindowSize::of(io::stdout()).map_or(24, |size| usize::from(size.rows()));
        let (frame, lines) = frame(&text, drawn, height);
        drawn = lines;
        write_output(frame.as_bytes())?;
        clock::pause(REFRESH_INTERVAL);
    }
}

/// Returns the text that replaces a list of `drawn` lines on a terminal, and the number of lines of the new list.
/// A single write keeps the terminal from flickering.
fn frame(text: &str, drawn: usize, height: usize) -> (String, usize) {
    let mut frame = if drawn > 0 { format!("\u{1b}[{drawn}A\r") } else { String::new() };
    // The cursor stands on the line below the list. If that did not fit, the terminal would scroll.
    let lines: Vec<&str> = text.lines().take(height.saturating_sub(1).max(1)).collect();
    for line in &lines {
        frame += line;
        frame += "\u{1b}[K\r\n";
    }
    frame += "\u{1b}[J";
    (frame, lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_and_never_scrolls() {
        assert_eq!(frame("a\nb\n", 0, 24), ("a\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J".into(), 2));
        assert_eq!(frame("a\n", 2, 24), ("\u{1b}[2A\ra\u{1b}[K\r\n\u{1b}[J".into(), 1));
        assert_eq!(frame("a\nb\nc\nd\n", 0, 3).1, 2);
    }
}
