//! The table of movies, and what the bus says about it.

use serde::{Deserialize, Serialize};
use warren_sdk::sql::{self, Row};
use warren_sdk::{OrReject, Result, params};

/// A movie as it is stored.
#[derive(Debug, Serialize)]
pub(crate) struct Movie {
    id: i64,
    title: String,
    description: Option<String>,
}

/// A movie as it is posted. Other members are ignored.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct NewMovie {
    title: String,
    description: Option<String>,
}

/// The titles asked for; none for every movie.
#[derive(Debug, PartialEq)]
pub(crate) struct Filter {
    titles: Option<Vec<String>>,
}

/// Creates the table on the first job ever. Later it costs no write.
pub(crate) fn create_table() -> Result<()> {
    // What counts by itself is the one thing here that databases write differently.
    let id = match sql::dialect().as_str() {
        "postgresql" => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        _ => "INTEGER PRIMARY KEY",
    };
    // `job_id` makes storing idempotent: a job may run again after a crash.
    sql::execute(
        &format!(
            "CREATE TABLE IF NOT EXISTS movies (
                id {id},
                title TEXT NOT NULL,
                description TEXT,
                job_id TEXT UNIQUE
            )"
        ),
        &[],
    )?;
    Ok(())
}

/// How many movies one answer holds: a query returns 10,000 rows at the most, and nobody reads them.
const MAX_MOVIES: u32 = 1000;

/// The movies that match, oldest first; of too many, the last ones.
pub(crate) fn find(filter: &Filter) -> Result<Vec<Movie>> {
    let titles = filter.titles.as_deref().unwrap_or_default();
    let matching = if filter.titles.is_some() {
        let placeholders: Vec<_> = (1..=titles.len()).map(|n| format!("${n}")).collect();
        format!("WHERE title IN ({})", placeholders.join(", "))
    } else {
        String::new()
    };
    let statement = format!(
        "SELECT id, title, description FROM (
            SELECT id, title, description FROM movies {matching}
            ORDER BY id DESC LIMIT {MAX_MOVIES}
        ) AS latest ORDER BY id"
    );
    let titles: Vec<_> = titles.iter().map(sql::Value::from).collect();
    let rows = sql::query(&statement, &titles)?;
    rows.iter().map(movie).collect()
}

/// Stores a movie once for each job, however often the job runs.
pub(crate) fn store(new: &NewMovie, job_id: &str) -> Result<Movie> {
    sql::execute(
        "INSERT INTO movies (title, description, job_id) VALUES ($1, $2, $3)
         ON CONFLICT (job_id) DO NOTHING",
        &params![&new.title, new.description.as_deref(), job_id],
    )?;
    // The two statements need no transaction: a run that dies in between is repeated, inserts
    // nothing and reads the same row.
    let rows = sql::query(
        "SELECT id, title, description FROM movies WHERE job_id = $1",
        &params![job_id],
    )?;
    let row = rows
        .first()
        .or_retry("the movie was deleted while it was being stored")?;
    movie(row)
}

/// Reads the parameters of a `GET`: an object, of which `title` counts. It is an array where
/// the query named it more than once.
pub(crate) fn filter(params: &str) -> Result<Filter> {
    #[derive(Deserialize)]
    struct Query {
        title: Option<Titles>,
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`title` is neither text nor an array of texts")]
    enum Titles {
        One(String),
        Several(Vec<String>),
    }

    let query: Option<Query> =
        serde_json::from_str(params).or_reject("the parameters are not a query")?;
    let titles = query
        .and_then(|query| query.title)
        .map(|title| match title {
            Titles::One(title) => vec![title],
            Titles::Several(titles) => titles,
        });
    Ok(Filter { titles })
}

/// Reads the parameters of a `POST`: the posted text, as a string.
pub(crate) fn posted(params: &str) -> Result<NewMovie> {
    let text: String = serde_json::from_str(params).or_reject("the parameters are not text")?;
    serde_json::from_str(&text).or_reject("the posted text is not a movie")
}

fn movie(row: Row<'_>) -> Result<Movie> {
    Ok(Movie {
        id: row.get("id")?,
        title: row.get("title")?,
        description: row.get("description")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(params: &str) -> Option<Vec<String>> {
        filter(params).unwrap().titles
    }

    #[test]
    fn only_the_title_filters() {
        assert_eq!(
            titles(r#"{"title":"Alien"}"#),
            Some(vec!["Alien".to_owned()])
        );
        assert_eq!(titles(r#"{"year":"1979"}"#), None);
        assert_eq!(titles("{}"), None);
        assert_eq!(titles("null"), None);
    }

    #[test]
    fn a_repeated_title_asks_for_any_of_them() {
        let expected = vec!["Alien".to_owned(), "Aliens".to_owned()];
        assert_eq!(titles(r#"{"title":["Alien","Aliens"]}"#), Some(expected));
    }

    #[test]
    fn a_filter_of_another_kind_is_rejected() {
        let error = filter(r#"{"title":7}"#).unwrap_err();
        assert!(
            error.reason().contains("neither text nor an array"),
            "{error}"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn the_posted_text_is_read_as_json() {
        let movie = posted(r#""{\"title\":\"Alien\",\"year\":1979}""#).unwrap();
        assert_eq!(
            movie,
            NewMovie {
                title: "Alien".to_owned(),
                description: None
            }
        );
    }

    #[test]
    fn a_movie_without_a_title_is_rejected() {
        let error = posted(r#""{}""#).unwrap_err();
        assert!(error.reason().contains("missing field `title`"), "{error}");
    }
}
