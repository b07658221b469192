//! `Renderer`: the port to the rendering, and its adapter on the CPU pool.

use async_trait::async_trait;
use bytes::Bytes;
use job::RenditionSpec;

use crate::cpu::CpuPool;
use crate::error::JobError;
use crate::render::{Provenance, RenderError, RenderSettings, Rendered, render};

/// Makes renditions of a source. In production it is [`CpuRenderer`]; a simulation of many hours cannot wait for an encoder.
#[async_trait]
pub trait Renderer: Send + Sync + 'static {
    /// Makes the standard picture of `source` and the `extra` renditions, marked with their `provenance`. Safe to drop while it works.
    ///
    /// # Errors
    /// The outer one when the rendering did not come to its end (a panic), the inner one as [`render`] has it.
    async fn render(
        &self,
        source: Bytes,
        extra: &[RenditionSpec],
        provenance: &Provenance,
    ) -> Result<Result<Rendered, RenderError>, JobError>;
}

/// The rendering on the threads of a [`CpuPool`].
#[derive(Debug, Clone)]
pub struct CpuRenderer {
    cpu: CpuPool,
    settings: RenderSettings,
}

impl CpuRenderer {
    pub fn new(cpu: CpuPool, settings: RenderSettings) -> Self {
        Self { cpu, settings }
    }
}

#[async_trait]
impl Renderer for CpuRenderer {
    async fn render(
        &self,
        source: Bytes,
        extra: &[RenditionSpec],
        provenance: &Provenance,
    ) -> Result<Result<Rendered, RenderError>, JobError> {
        let (settings, extra, provenance) = (self.settings.clone(), extra.to_vec(), provenance.clone());
        let rendered = self.cpu.run("render", move || render(&source, &settings, &extra, &provenance)).await;
        rendered.map_err(JobError::from)
    }
}
