//! Conversations at random: what no experiment means arrives to the byte, and what one means is what
//! the edit makes of the message, by a model that knows nothing of the programs.
//!
//! `KFAULT_HTTP_SEED=N` plays the conversation of a failure alone, `KFAULT_HTTP_ROUNDS=N` that many.

mod model;
mod play;
mod talk;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::{Run, Summary};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Net};
use kfault_tests::probe::http::PORT;
use serde_json::json;

use super::needs_http;
use crate::harness::{Done, Test, tests};
use model::{RULES, Rule};
use play::Stage;
use talk::Talk;

pub fn tests() -> Vec<Test> {
    tests!("http":
        conversations_at_random_that_nothing_means_arrive_to_the_byte,
        conversations_at_random_are_edited_as_a_model_says,
    )
}

const FIRST: u64 = 1;
/// Conversations of a test. Each has nine exchanges or so.
const CONVERSATIONS: u64 = 60;

fn seeds() -> Result<std::ops::Range<u64>> {
    let number = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().with_context(|| format!("{name}={text}"))).transpose()
    };
    let rounds = number("KFAULT_HTTP_ROUNDS")?.unwrap_or(CONVERSATIONS);
    Ok(match number("KFAULT_HTTP_SEED")? {
        Some(seed) => seed..seed + 1,
        None => FIRST..FIRST + rounds,
    })
}

/// What came of all conversations.
struct Had {
    /// Exchanges that were to be acted on.
    meant: u64,
    /// Conversations that went on in another language.
    upgraded: u64,
    summary: Summary,
}

/// Has every conversation while these act.
fn converse(rules: &'static [Rule], manifests: &[Manifest]) -> Result<Had> {
    let net = Net::in_order()?;
    let web = &net.client;
    let at = FAMILIES.map(|family| SocketAddr::new(web.ip(family), PORT));
    let stages = [Stage::new(&net, at[0])?, Stage::new(&net, at[1])?];
    let mut run = Run::default().target(&web.ns.word()).seed(1);
    for manifest in manifests {
        run = run.and(manifest)?;
    }
    let kfault = run.start()?;
    let (mut meant, mut upgraded) = (0, 0);
    for seed in seeds()? {
        let talk = Talk::at_random(seed, rules);
        meant += talk.meant;
        upgraded += u64::from(talk.is_upgraded);
        let stage = &stages[usize::from(seed % 2 == 0)];
        stage.play(&talk).with_context(|| {
            format!("KFAULT_HTTP_SEED={seed} plays this one again:\n{}", talk.describe())
        })?;
    }
    Ok(Had { meant, upgraded, summary: kfault.stop()? })
}

/// Nothing valid passes because it was not understood. What is no HTTP is said in three parts, each
/// of which is looked at anew and may look like anything.
fn ensure_understood(had: &Had) -> Result<()> {
    for one in had.summary.json()["exchanges"].as_array().into_iter().flatten() {
        let mut foreign = 0;
        for (reason, count) in one["passed"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or_default();
            let is_foreign = ["unparsed", "tls", "http2"].contains(&reason.as_str());
            ensure!(is_foreign || count == 0, "{reason}: {one}");
            foreign += count;
        }
        ensure!(foreign <= 3 * had.upgraded, "{} were upgraded: {one}", had.upgraded);
    }
    Ok(())
}

fn conversations_at_random_that_nothing_means_arrive_to_the_byte() -> Result<Done> {
    needs_http!();
    let manifest = Manifest::http(PORT).with("path", json!("/nothing/like/this"));
    let path = manifest.with("replace", super::replaced("no"));
    // Every response of this one is looked at.
    let code = Manifest::http(PORT).named("kft-code").with("code", json!(599));
    let code = code.with("replace", super::replaced("no"));
    let had = converse(&[], &[path, code])?;
    let summary = &had.summary;
    ensure!(summary.exchanged("seen") > 0, "{}", summary.json());
    ensure!(summary.exchanged("injected") == 0, "{}", summary.json());
    ensure_understood(&had)?;
    Ok(Done::Kept)
}

fn conversations_at_random_are_edited_as_a_model_says() -> Result<Done> {
    needs_http!();
    let manifests: Vec<Manifest> = RULES.iter().map(Rule::manifest).collect();
    let had = converse(&RULES, &manifests)?;
    let Had { meant, summary, .. } = &had;
    ensure!(summary.exchanged("injected") == *meant, "not {meant}: {}", summary.json());
    ensure_understood(&had)?;
    Ok(Done::Kept)
}
