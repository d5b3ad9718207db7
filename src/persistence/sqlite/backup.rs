//! A copy of the database, made beside a server that is at work on it.
//!
//! SQLite's `VACUUM INTO` makes it, on a connection that only reads. It sees the database at one moment and holds nobody
//! up: the server goes on writing, and its log grows until the copy is made. The other way, the online backup, begins
//! anew whenever another process has written, so beside a busy server it would not come to an end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions, Connection};
use tempfile::{PathPersistError, TempDir, TempPath};

use super::{DATABASE_FILE, OpenError, connect_options};

/// Who may read a backup, which holds password hashes and keys: its owner.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Why there is no backup. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no database to copy.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// There is something of that name already.
    #[error("{} is there already, and is not overwritten", file.display())]
    Exists {
        /// The name.
        file: PathBuf,
    },
    /// There is no folder that the backup could be in.
    #[error("there is no folder {} to put the backup into", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The backup can not be written.
    #[error("the backup {} can not be written: {source}", file.display())]
    File {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database can not be copied.
    #[error("the database can not be copied to {}: {source}", file.display())]
    Copy {
        /// The name of the backup.
        file: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
}

/// Copies the database of a folder, as it is at one moment, into a new file; gives the file's bytes. A file of that name
/// is always a whole copy: it is made in a folder of its own beside it, and gets its name when it is on disk.
///
/// # Errors
/// [`BackupError`]; nothing is left then.
///
/// # Cancel safety
/// May be dropped at any point; nothing is left of the copy.
pub async fn back_up(folder: &Path, file: &Path) -> Result<u64, BackupError> {
    if !folder.join(DATABASE_FILE).is_file() {
        return Err(OpenError::NoDatabase { folder: folder.to_owned() }.into());
    }
    // Whatever it is, a link that leads nowhere too.
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { file: file.to_owned() });
    }
    let beside = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if !beside.is_dir() {
        return Err(BackupError::NoFolder { folder: beside.to_owned() });
    }
    let failed = |source| BackupError::File { file: file.to_owned(), source };
    let making = making_place(beside).map_err(failed)?;
    let copy = making.path().join(DATABASE_FILE);
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&copy).map_err(failed)?;
    copy_into(folder, &copy).await.map_err(|source| BackupError::Copy { file: file.to_owned(), source })?;
    let written = File::open(&copy).and_then(|written| written.sync_all().and_then(|()| written.metadata()));
    let bytes = written.map_err(failed)?.len();
    put(copy, file)?;
    File::open(beside).and_then(|beside| beside.sync_all()).map_err(failed)?;
    Ok(bytes)
}

/// A folder that goes with its handle, for the copy and the journal that SQLite keeps beside it meanwhile.
fn making_place(beside: &Path) -> io::Result<TempDir> {
    let mut place = tempfile::Builder::new();
    place.prefix(".storekeeper-backup-").permissions(fs::Permissions::from_mode(FOLDER_MODE)).tempdir_in(beside)
}

async fn copy_into(folder: &Path, copy: &Path) -> Result<(), sqlx::Error> {
    let copy = copy.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidFilename, "its name is not UTF-8"))?;
    let mut connection = connect_options(folder).read_only(true).connect().await?;
    sqlx::query("VACUUM INTO $1").persistent(false).bind(copy).execute(&mut connection).await?;
    connection.close().await
}

/// Gives the copy its name, unless somebody else has taken that meanwhile.
fn put(copy: PathBuf, file: &Path) -> Result<(), BackupError> {
    let put = TempPath::try_from_path(copy)
        .and_then(|copy| copy.persist_noclobber(file).map_err(|PathPersistError { error, .. }| error));
    put.map_err(|source| {
        let file = file.to_owned();
        let taken = source.kind() == io::ErrorKind::AlreadyExists;
        if taken { BackupError::Exists { file } } else { BackupError::File { file, source } }
    })
}
