//! The example: REST, Pilot and DB answer requests for movies from a real database.

use hyper::Method;
use serde_json::json;
use warren_tests::{Host, Setup, Site};

use crate::{has, problem};

on_both_buses! {
    there_are_no_movies_at_first
    a_posted_movie_comes_back_with_its_id_and_is_listed
    a_title_filters
    what_is_not_movies_is_not_found
    a_body_that_is_not_a_movie_is_refused_saying_where
    rows_survive_a_restart
    two_hosts_that_share_the_data_folder_see_the_same_rows
}

async fn there_are_no_movies_at_first(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let response = host.get("/movies/").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.content_type, "application/json");
    assert_eq!(response.json(), json!([]));
}

async fn a_posted_movie_comes_back_with_its_id_and_is_listed(site: &Site) {
    are_kept(&Setup::new(site).with_movies().start().await).await;
}

/// Posts two movies to a host without any, and reads them back.
pub(crate) async fn are_kept(host: &Host) {
    let posted = host
        .post("/movies/", r#"{"title":"Alien","description":"In space"}"#)
        .await;
    assert_eq!(posted.status, 200, "{}", posted.text());
    let alien = json!({"id": 1, "title": "Alien", "description": "In space"});
    assert_eq!(posted.json(), alien);
    let posted = host.post("/movies/", r#"{"title":"Brazil"}"#).await;
    let brazil = json!({"id": 2, "title": "Brazil", "description": null});
    assert_eq!(posted.json(), brazil);
    assert_eq!(
        host.get("/movies/?title=Alien&title=Nobody").await.json(),
        json!([alien])
    );
    assert_eq!(host.get("/movies/").await.json(), json!([alien, brazil]));
}

async fn a_title_filters(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    for title in ["Alien", "Blade Runner", "Brazil", "Amélie"] {
        let movie = json!({ "title": title }).to_string();
        assert_eq!(host.post("/movies/", movie).await.status, 200);
    }
    let titles = async |query: &str| {
        let movies = host.get(&format!("/movies/?{query}")).await.json();
        let movies = movies.as_array().unwrap().iter();
        let titles: Vec<_> = movies
            .map(|movie| movie["title"].as_str().unwrap().to_owned())
            .collect();
        titles.join(", ")
    };
    assert_eq!(titles("title=Alien").await, "Alien");
    assert_eq!(titles("title=Blade+Runner").await, "Blade Runner");
    assert_eq!(titles("title=Am%C3%A9lie").await, "Amélie");
    assert_eq!(titles("title=Alien&title=Brazil").await, "Alien, Brazil");
    assert_eq!(titles("title=Aliens").await, "");
    assert_eq!(titles("title=%27+OR+1=1").await, "");
    assert_eq!(
        titles("year=1979").await,
        "Alien, Blade Runner, Brazil, Amélie"
    );
}

async fn what_is_not_movies_is_not_found(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    for path in ["/", "/movies", "/movies/1", "/Movies/"] {
        problem(&host.get(path).await, 404);
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        problem(&host.send(method, "/movies/", "").await, 404);
    }
    let head = host.send(Method::HEAD, "/movies/", "").await;
    assert_eq!(head.status, 404);
}

async fn a_body_that_is_not_a_movie_is_refused_saying_where(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let detail = problem(&host.post("/movies/", "{\n\"title\": Alien}").await, 400);
    has(&detail, ["line 2 column 10"]);
    for (body, told) in [
        ("", "line 1 column 0"),
        ("[]", "object"),
        ("{}", "title"),
        (r#"{"title":7}"#, "expected a string at line 1 column 10"),
    ] {
        has(&problem(&host.post("/movies/", body).await, 400), [told]);
    }
    assert_eq!(host.get("/movies/").await.json(), json!([]));
}

async fn rows_survive_a_restart(site: &Site) {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        let setup = Setup::new(site).with_movies();
        setup.with_option("--data-dir", data.path()).start()
    };
    let host = start().await;
    let alien = host.post("/movies/", r#"{"title":"Alien"}"#).await.json();
    assert_eq!(alien["title"], "Alien");
    assert_eq!(host.stop().await.code, Some(0));
    let host = start().await;
    assert_eq!(host.get("/movies/").await.json(), json!([alien]));
    // A killed host has no time to close its database.
    let brazil = host.post("/movies/", r#"{"title":"Brazil"}"#).await.json();
    host.kill().await;
    let host = start().await;
    assert_eq!(host.get("/movies/").await.json(), json!([alien, brazil]));
}

async fn two_hosts_that_share_the_data_folder_see_the_same_rows(site: &Site) {
    const N_EACH: usize = 20;
    let data = tempfile::tempdir().unwrap();
    let start = || {
        let setup = Setup::new(site).with_movies();
        setup.with_option("--data-dir", data.path()).start()
    };
    let (one, two) = tokio::join!(start(), start());
    // Both write at once, into a database that neither has made yet.
    let post_all = async |host: &warren_tests::Host| {
        for n in 0..N_EACH {
            let movie = json!({ "title": n.to_string() }).to_string();
            let posted = host.post("/movies/", movie).await;
            assert_eq!(posted.status, 200, "{}", posted.text());
        }
    };
    tokio::join!(post_all(&one), post_all(&two));
    let movies = one.get("/movies/").await.json();
    assert_eq!(movies.as_array().unwrap().len(), 2 * N_EACH);
    assert_eq!(two.get("/movies/").await.json(), movies);
}
