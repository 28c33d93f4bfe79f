//! Many clients at once.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::json;

use super::client::{unbase64, Server};
use crate::running::native_model;

const CLIENTS: u64 = 50;
/// Of each.
const REQUESTS: u64 = 4;

#[test]
fn no_job_of_many_clients_is_lost_or_doubled() {
    let (folder, model) = native_model();
    let server = Server::of(folder.path(), &model, &[]);
    server.ready();
    let picture = |seed: u64| {
        let wish = json!({"prompt": "a bird", "steps": 1, "seed": seed});
        let answer = server.post("/v1/images/generations", &wish).ok().json();
        assert_eq!(answer["data"][0]["seed"], seed);
        unbase64(&answer["data"][0]["b64_json"])
    };
    let alone = picture(7);
    let before = (server.metric("pictures_total"), server.memory());
    let made = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (picture, made) = (&picture, &made);
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let seed = client * REQUESTS + request;
                    let file = picture(seed);
                    made.lock().expect("no panic").insert(seed);
                    if seed == 7 {
                        assert!(vqdiffusion::picture::decode(&file).is_ok());
                    }
                }
            });
        }
    });
    assert_eq!(
        made.lock().expect("no panic").len() as u64,
        CLIENTS * REQUESTS
    );
    let pictures = server.metric("pictures_total") - before.0;
    assert_eq!(pictures as u64, CLIENTS * REQUESTS);
    assert!(picture(7) == alone);
    // The history and buffers of 200 tiny pictures, no more.
    let grown = server.memory().saturating_sub(before.1);
    assert!(grown < 64 << 10, "{grown} kB");
}
