//! SQLite's one wait that its own timeout does not cover.

use std::time::{Duration, Instant};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens a database, again and again while somebody else opens it for the first time: turning the
/// write-ahead log on needs the file for oneself, and does not wait for it.
pub(super) async fn opened<T, Opening>(
    patience: Duration,
    open: impl Fn() -> Opening,
) -> Result<T, sqlx::Error>
where
    Opening: Future<Output = Result<T, sqlx::Error>>,
{
    let until = Instant::now() + patience;
    loop {
        match open().await {
            Err(error) if is_busy(&error) && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            ended => return ended,
        }
    }
}

/// Whether somebody else's lock was in the way. The low byte is the primary code
/// (<https://sqlite.org/rescode.html>).
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
