//! The ways in which editors and deploy tools replace a file. After each the new build serves, under
//! the same worker id, and no request has found nobody.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;
use warren_tests::{Host, Setup, Site, host::plugin, variant};

use crate::reload::{arrival, serving_as};

/// Replaces the Pilot by its next version in this way, while requests come.
async fn check(prepare: impl FnOnce(&Path), replace: impl FnOnce(&Path, Vec<u8>)) {
    let host = Setup::new(&Site::embedded()).with_plugins(["rest", "db"]);
    let host = host.start().await;
    prepare(&host.plugins);
    let id = arrival(&host, "WD").await["id"].clone();
    let host = Arc::new(host);
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(ask_until(stop.clone(), host.clone()));
    replace(&host.plugins, plugin("pilot_next"));
    let worker = serving_as(&host, "WD", "version", "2.0.0").await;
    assert_eq!(worker["id"], id);
    assert_eq!(
        host.get("/movies/").await.json(),
        json!([{"id": 0, "title": "from pilot 2"}])
    );
    stop.store(true, Ordering::Relaxed);
    client.await.unwrap();
}

async fn ask_until(stop: Arc<AtomicBool>, host: Arc<Host>) {
    while !stop.load(Ordering::Relaxed) {
        let response = host.get("/movies/").await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

fn place(folder: &Path) -> PathBuf {
    folder.join("pilot.wasm")
}

fn plain(folder: &Path) {
    fs::write(place(folder), plugin("pilot")).unwrap();
}

#[tokio::test]
async fn a_copy_over_the_file() {
    check(plain, |folder, next| {
        fs::write(place(folder), next).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_rename_over_the_file_as_rsync_and_editors_do_it() {
    check(plain, |folder, next| {
        let part = folder.join(".pilot.wasm.x1Y2z3");
        fs::write(&part, next).unwrap();
        fs::rename(part, place(folder)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_deleted_and_made_anew() {
    check(plain, |folder, next| {
        fs::remove_file(place(folder)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        fs::write(place(folder), next).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_new_name_beside_the_old_one_that_is_deleted() {
    check(plain, |folder, next| {
        fs::remove_file(place(folder)).unwrap();
        fs::write(folder.join("pilot-2.wasm"), next).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_symbolic_link_that_leads_to_another_file() {
    let elsewhere = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| elsewhere.path().join(name));
    fs::write(&old, plugin("pilot")).unwrap();
    check(
        |folder| symlink(&old, place(folder)).unwrap(),
        |folder, next| {
            fs::write(&new, next).unwrap();
            let link = folder.join(".link");
            symlink(&new, &link).unwrap();
            fs::rename(link, place(folder)).unwrap();
        },
    )
    .await;
}

/// A change behind a link is no event in the folder: what finds it is that the folder is looked at
/// from time to time, as on a file system without events.
#[tokio::test]
async fn a_change_of_which_the_system_tells_nothing() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("build");
    fs::write(&file, plugin("pilot")).unwrap();
    check(
        |folder| symlink(&file, place(folder)).unwrap(),
        |_, next| fs::write(&file, next).unwrap(),
    )
    .await;
}

/// As Kubernetes mounts a ConfigMap: the names are links through `..data`, which is replaced.
#[tokio::test]
async fn a_folder_behind_links_as_kubernetes_has_it() {
    let fill = |folder: &Path, name: &str, content: Vec<u8>| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("pilot.wasm"), content).unwrap();
        let link = folder.join("..data_tmp");
        symlink(name, &link).unwrap();
        fs::rename(link, folder.join("..data")).unwrap();
    };
    check(
        |folder| {
            fill(folder, "..2026_11_21_1", plugin("pilot"));
            symlink("..data/pilot.wasm", place(folder)).unwrap();
        },
        |folder, next| {
            fill(folder, "..2026_11_21_2", next);
            fs::remove_dir_all(folder.join("..2026_11_21_1")).unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_as_a_whole() {
    check(plain, |folder, next| {
        let parent = folder.parent().unwrap();
        let new = parent.join("next");
        fs::create_dir(&new).unwrap();
        for name in ["rest.wasm", "db.wasm"] {
            fs::copy(folder.join(name), new.join(name)).unwrap();
        }
        fs::write(place(&new), next).unwrap();
        fs::rename(folder, parent.join("before")).unwrap();
        fs::rename(new, folder).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_disappears_and_comes_back_later() {
    let host = Setup::new(&Site::embedded()).with_movies().start().await;
    let away = host.plugins.with_file_name("away");
    fs::rename(&host.plugins, &away).unwrap();
    host.logged(
        "the plugins folder cannot be read; what serves goes on serving",
        [],
    )
    .await;
    assert_eq!(host.get("/movies/").await.status, 200);
    fs::write(place(&away), plugin("pilot_next")).unwrap();
    fs::rename(&away, &host.plugins).unwrap();
    serving_as(&host, "WD", "version", "2.0.0").await;
    assert_eq!(host.get("/movies/").await.status, 200);
    // And it is followed from then on.
    host.drop_in("pilot.wasm", plugin("pilot"));
    serving_as(&host, "WD", "version", "1.0.0").await;
}

#[tokio::test]
async fn several_files_at_once_each_as_soon_as_it_is_ready() {
    let host = Setup::new(&Site::embedded()).with_movies().start().await;
    for name in ["rest", "pilot", "db"] {
        let file = format!("{name}.wasm");
        host.drop_in(&file, variant(&plugin(name), "another build"));
    }
    host.drop_in("ledger.wasm", plugin("ledger"));
    for (worker_type, name) in [("WA", "rest"), ("WD", "pilot"), ("WB", "db")] {
        let digest = warren_tests::digest_of(&variant(&plugin(name), "another build"));
        serving_as(&host, worker_type, "digest", &digest).await;
    }
    arrival(&host, "FL").await;
    assert_eq!(host.get("/movies/").await.json(), json!([]));
}
