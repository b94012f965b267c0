//! Clients, a resolver, and what a name gets.

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::{Kfault, Run, Summary};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::dns::{A, AAAA, Answer, NOERROR, PATIENCE, Query, REAL, Resolver, ask};

use crate::faulty::{on_client, with_run};

/// A net with a resolver of both families on the server.
pub struct Scene {
    /// Client, server and neighbour.
    pub net: Net,
    resolvers: Vec<Resolver>,
}

impl Scene {
    /// Makes everything.
    pub fn new() -> Result<Self> {
        let net = Net::new()?;
        let start = |family| Resolver::start(&net.server.ns, net.server.ip(family));
        let resolvers = FAMILIES.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { net, resolvers })
    }

    /// Injects into the client, while `check` looks; afterwards every name has its address again.
    pub fn with_fault(
        &self,
        manifest: &Manifest,
        check: impl FnOnce(&mut Kfault) -> Result<()>,
    ) -> Result<Summary> {
        self.with_run(on_client(&self.net, manifest)?, check)
    }

    /// As [`Self::with_fault`], with several at the same time, of different names.
    pub fn with_faults(
        &self,
        manifests: &[Manifest],
        check: impl FnOnce(&mut Kfault) -> Result<()>,
    ) -> Result<Summary> {
        let (first, others) = manifests.split_first().context("no fault")?;
        let run = others.iter().try_fold(on_client(&self.net, first)?, Run::and)?;
        self.with_run(run, check)
    }

    fn with_run(&self, run: Run, check: impl FnOnce(&mut Kfault) -> Result<()>) -> Result<Summary> {
        let summary = with_run(&self.net, run, check)?;
        for family in FAMILIES {
            self.real(&self.net.client.ns, family, "google.com")?;
        }
        Ok(summary)
    }

    /// What a name gets in a namespace.
    pub fn ask(&self, ns: &Ns, family: Family, query: &Query) -> Result<Answer> {
        let answer = ask(ns, self.net.server.ip(family), query, PATIENCE)?;
        answer.with_context(|| format!("{query:?} over {family:?} got no answer"))
    }

    /// A name has the address that the resolver gives.
    pub fn real(&self, ns: &Ns, family: Family, name: &str) -> Result<()> {
        for (kind, real) in [A, AAAA].into_iter().zip(REAL) {
            let answer = self.ask(ns, family, &Query::of(name, kind))?;
            ensure!(
                answer.code == NOERROR && answer.addresses == [(real, 60)],
                "{name} over {family:?} in {}: {answer:?}",
                ns.name()
            );
        }
        Ok(())
    }

    /// Messages that have come to the resolvers so far.
    pub fn seen(&self) -> u64 {
        self.resolvers.iter().map(Resolver::seen).sum()
    }
}
