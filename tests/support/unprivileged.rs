//! Programs that refuse to run as root are started as a user of their own when a test runs as root.

use std::path::Path;
use std::process::Command;

/// A command that runs as `user` when this is root, and as whoever this is otherwise.
pub(crate) fn command(user: &str, program: &Path) -> Command {
    match user_and_group(user) {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command
                .args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"])
                .arg(program);
            command
        }
    }
}

/// The user and group to become, when this is root.
pub(crate) fn user_and_group(user: &str) -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let told = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(told.stdout).ok()?.trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    Some((id(&["-u", user])?, id(&["-g", user])?))
}
