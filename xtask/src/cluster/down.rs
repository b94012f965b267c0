//! The end of a cluster, whole or half made, started from this folder or from another one.

use std::fs;

use anyhow::{Context, Result};

use super::node::PREFIX;
use super::{CONTROL, Cluster, cgroups, network};

/// Ends it. Nothing happens when there is none.
pub fn down(cluster: &Cluster) -> Result<()> {
    let hierarchies = cgroups::hierarchies()?;
    // SIGKILL to all of them: the data is thrown away, and an API server without its etcd takes a
    // minute to end by itself.
    let mut folders = cgroups::named(&hierarchies, PREFIX);
    folders.extend(cgroups::named(&hierarchies, CONTROL));
    cgroups::end(&folders)?;
    for name in network::named(PREFIX).into_iter().chain(network::named(CONTROL)) {
        network::delete(&name)?;
    }
    if let Ok(added) = fs::read_to_string(cluster.file("controllers")) {
        cgroups::withdraw(&hierarchies, &added);
    }
    if let Ok(made) = fs::read_to_string(cluster.file("made")) {
        for folder in made.lines().rev() {
            // Somebody else may use it by now.
            let _ = fs::remove_dir(folder);
        }
    }
    if cluster.state.exists() {
        fs::remove_dir_all(&cluster.state)
            .with_context(|| format!("remove {}", cluster.state.display()))?;
    }
    Ok(())
}
