//! `storekeeper backup`: a copy of the database, beside a server or without one.

use std::io::{self, Write};
use std::path::Path;

use crate::app::Signals;
use crate::config::StoreConfig;
use crate::persistence::sqlite::backup::back_up;

use super::CliError;

/// Writes a copy of the database into a new file, and says how large it is. Told to end, it leaves nothing.
pub(super) async fn backup(config: &StoreConfig, file: &Path) -> Result<(), CliError> {
    let StoreConfig::Sqlite { folder } = config else { return Err(CliError::BackupOfPostgres) };
    let mut signals = Signals::watch()?;
    let bytes = tokio::select! {
        bytes = back_up(folder, file) => bytes?,
        () = signals.next() => return Err(CliError::Interrupted),
    };
    writeln!(io::stdout(), "{} is a backup of {config}: {bytes} bytes.", file.display())?;
    Ok(())
}
