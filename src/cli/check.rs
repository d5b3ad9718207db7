//! `storekeeper check`: the books, verified rule by rule.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::StoreConfig;
use crate::persistence::open::open_snapshot;
use crate::persistence::records::Verdict;

use super::CliError;

/// Verifies a database on one consistent view of it, beside a server or without one. The exit code is
/// 1 when a rule is broken.
pub(super) async fn check(config: &StoreConfig) -> Result<ExitCode, CliError> {
    let store = open_snapshot(config.options(1)).await?;
    let verdicts = store.check().await;
    store.close().await;
    let verdicts = verdicts?;
    write!(io::stdout(), "{}", report(&verdicts))?;
    let broken = verdicts.iter().any(|verdict| verdict.broken_count > 0);
    Ok(if broken { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn report(verdicts: &[Verdict]) -> String {
    let mut lines: Vec<String> = verdicts.iter().map(line).collect();
    let broken = verdicts.iter().filter(|verdict| verdict.broken_count > 0).count();
    lines.push(match broken {
        0 => format!("All {} rules hold.", verdicts.len()),
        _ => format!("{broken} of {} rules are broken.", verdicts.len()),
    });
    lines.join("\n") + "\n"
}

fn line(verdict: &Verdict) -> String {
    let Verdict { invariant, rule, checked, broken, broken_count } = verdict;
    if *broken_count == 0 {
        return format!("ok      {invariant}  {rule} ({checked} looked at)");
    }
    let named = broken.join(" ");
    let shown = i64::try_from(broken.len()).unwrap_or(i64::MAX);
    let rest = if *broken_count > shown { format!(" and {} more", broken_count - shown) } else { String::new() };
    format!("BROKEN  {invariant}  {rule} ({broken_count} of {checked} looked at): {named}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_is_broken() {
        let kept = Verdict { invariant: 1, rule: "held units are there", checked: 7, broken: vec![], broken_count: 0 };
        let ids = vec!["a".to_owned(), "b".to_owned()];
        let broken = Verdict { invariant: 2, rule: "the chain is whole", checked: 9, broken: ids, broken_count: 5 };
        assert_eq!(
            report(&[kept.clone(), broken]),
            "ok      1  held units are there (7 looked at)\n\
             BROKEN  2  the chain is whole (5 of 9 looked at): a b and 3 more\n\
             1 of 2 rules are broken.\n"
        );
        assert!(report(&[kept]).ends_with("All 1 rules hold.\n"));
    }
}
