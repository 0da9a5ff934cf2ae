//! Ghost searches.

#[path = "../../../src/engine/ghosts/search_permits.rs"]
pub mod search_permits;
#[path = "../../../src/engine/zone_client.rs"]
pub mod zone_client;
