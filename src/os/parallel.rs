//! Spreading many small waits for the system over the machine's cores.

use std::num::NonZero;
use std::thread;

/// Fewer items than this are not worth a thread.
const WORTH_IT: usize = 128;

/// Applies a function to every item; results come in the order of the items.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], function: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < WORTH_IT {
        return items.iter().map(function).collect();
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(8);
    let function = &function;
    thread::scope(|scope| {
        let share = |part: &'_ [T]| -> Vec<R> { part.iter().map(function).collect() };
        let mut parts = items.chunks(items.len().div_ceil(cores));
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || share(part))).collect();
        let mut results = share(first);
        for other in others {
            match other.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_order() {
        for count in [0, 1, 127, 128, 1_001] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(super::map(&items, |item| item + 1), (1..=count).collect::<Vec<_>>());
        }
    }
}
