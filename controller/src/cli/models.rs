//! `muster models`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use bytes::{Bytes as RawBytes, BytesMut};
use indicatif::{ProgressBar, ProgressStyle};
use muster_engine::gguf::GgufHeader;
use muster_proto::wire::{self, import_model_progress, import_model_request, quantize_model_request};
use muster_proto::{Bytes, Model};
use muster_reports::{model_page, models_table};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::args::{Making, ModelsCommand};
use super::output::Output;
use super::{Client, Failure};
use crate::catalog::{check_name, check_quantization, name_from};

/// Bytes of a file in one message.
const CHUNK: usize = 1 << 20;

/// What is wrong with the flags of an import, found before anything is sent.
pub(super) fn check_usage(name: Option<&str>, quantize: &[String], imatrix: Option<&Path>) -> Result<(), Failure> {
    if let Some(name) = name {
        check_name(name).map_err(|error| Failure::usage(error.to_string()))?;
    }
    for quantization in quantize {
        check_quantization(quantization, imatrix.is_some()).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(())
}

pub(super) async fn run(client: &mut Client, command: ModelsCommand, output: &Output) -> Result<(), Failure> {
    match command {
        ModelsCommand::Import { path, bundled: _, name, making } => {
            let Some(path) = path else {
                let model = import(client, None, name, &making).await?;
                return output.result(&model, |style| model_page(&model, style));
            };
            let files = files(&path)?;
            if files.len() > 1 && name.is_some() {
                return Err(Failure::usage("--name is for one file, and the directory has several"));
            }
            let mut models: Vec<Model> = Vec::new();
            for file in &files {
                let model = import(client, Some(file), name.clone(), &making).await;
                let model = model.map_err(|failure| Failure {
                    message: format!("{}: {}", file.display(), failure.message),
                    ..failure
                })?;
                models.retain(|earlier| earlier.name != model.name);
                models.push(model);
            }
            match &models[..] {
                [model] if !path.is_dir() => output.result(model, |style| model_page(model, style)),
                models => output.result(&models, |style| models_table(models, style)),
            }
        }
        ModelsCommand::Quantize { name, quantize, imatrix, no_quality, requantize } => {
            let model = make(client, name, quantize, imatrix.as_deref(), (no_quality, requantize)).await?;
            output.result(&model, |style| model_page(&model, style))
        }
        ModelsCommand::List => {
            let models: Vec<Model> = client.list_models(wire::ListModelsRequest {}).await?.into_inner().try_into()?;
            output.result(&models, |style| models_table(&models, style))
        }
        ModelsCommand::Show { name } => {
            let model = Model::try_from(client.get_model(wire::GetModelRequest { name }).await?.into_inner())?;
            output.result(&model, |style| model_page(&model, style))
        }
    }
}

/// The file itself, or the GGUF files of a directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failure = |error: &io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    if !path.metadata().map_err(|error| failure(&error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(|error| failure(&error))? {
        let file = entry.map_err(|error| failure(&error))?.path();
        if file.is_file() && file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::new(format!("{} has no .gguf file", path.display())));
    }
    Ok(files)
}

/// A file that does not name its model is called by its own name.
fn name_of(file: &Path) -> Option<String> {
    let header = GgufHeader::read(file).ok()?;
    if header.name().and_then(name_from).is_some() {
        return None;
    }
    name_from(file.file_stem()?.to_str()?)
}

async fn import(
    client: &mut Client,
    file: Option<&Path>,
    name: Option<String>,
    making: &Making,
) -> Result<Model, Failure> {
    let (messages, outgoing) = mpsc::channel(4);
    let mut size = 0;
    let mut label = "bundled model".to_owned();
    let mut name = name;
    let mut opened = None;
    if let Some(file) = file {
        let failure = |error: io::Error| Failure::new(format!("cannot read it: {error}"));
        let content = File::open(file).await.map_err(failure)?;
        size = content.metadata().await.map_err(failure)?.len();
        label = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        name = name.or_else(|| name_of(file));
        opened = Some(content);
    }
    let (matrix, imatrix_size) = opened_imatrix(making.imatrix.as_deref()).await?.unzip();
    let imatrix_size = imatrix_size.unwrap_or(0);
    let start = wire::ImportModelStart {
        size,
        name: name.unwrap_or_default(),
        quantize: making.quantize.clone(),
        bundled: file.is_none(),
        no_quality: making.no_quality,
        imatrix_size,
    };
    let start = wire::ImportModelRequest { message: Some(import_model_request::Message::Start(start)) };
    messages.send(start).await.map_err(|_| Failure::new("cannot begin the import"))?;
    let sending = tokio::spawn(async move {
        if let Some(matrix) = matrix {
            send(matrix, &messages, |part| {
                let message = Some(import_model_request::Message::Imatrix(part));
                wire::ImportModelRequest { message }
            })
            .await?;
        }
        if let Some(content) = opened {
            send(content, &messages, |part| {
                let message = Some(import_model_request::Message::Chunk(part));
                wire::ImportModelRequest { message }
            })
            .await?;
        }
        Ok::<(), io::Error>(())
    });
    let answers = client.import_model(ReceiverStream::new(outgoing)).await?.into_inner();
    match follow(answers, Shown::new(label, size)).await? {
        Some(model) => Ok(model),
        None => match sending.await {
            Ok(Err(error)) => Err(Failure::new(format!("cannot read it: {error}"))),
            _ => Err(Failure::new("the controller ended the import without an answer: see its log")),
        },
    }
}

/// An importance matrix, opened before anything is sent, and its size.
async fn opened_imatrix(path: Option<&Path>) -> Result<Option<(File, u64)>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let opened = async {
        let file = File::open(path).await?;
        match file.metadata().await?.len() {
            0 => Err(io::Error::other("it is empty")),
            size => Ok((file, size)),
        }
    };
    opened.await.map(Some).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

/// Makes quantizations of a model that is in the catalog.
async fn make(
    client: &mut Client,
    name: String,
    quantize: Vec<String>,
    imatrix: Option<&Path>,
    (no_quality, requantize): (bool, bool),
) -> Result<Model, Failure> {
    let (matrix, imatrix_size) = opened_imatrix(imatrix).await?.unzip();
    let imatrix_size = imatrix_size.unwrap_or(0);
    let (messages, outgoing) = mpsc::channel(4);
    let shown = Shown::new(name.clone(), 0);
    let start = wire::QuantizeModelStart { name, quantize, no_quality, requantize, imatrix_size };
    let start = wire::QuantizeModelRequest { message: Some(quantize_model_request::Message::Start(start)) };
    messages.send(start).await.map_err(|_| Failure::new("cannot begin"))?;
    let sending = tokio::spawn(async move {
        let Some(matrix) = matrix else { return Ok(()) };
        send(matrix, &messages, |part| {
            let message = Some(quantize_model_request::Message::Imatrix(part));
            wire::QuantizeModelRequest { message }
        })
        .await
    });
    let answers = client.quantize_model(ReceiverStream::new(outgoing)).await?.into_inner();
    match follow(answers, shown).await? {
        Some(model) => Ok(model),
        None => match sending.await {
            Ok(Err(error)) => Err(Failure::new(format!("cannot read the importance matrix: {error}"))),
            _ => Err(Failure::new("the controller ended it without an answer: see its log")),
        },
    }
}

/// Shows how it goes, until the model is there. The controller says more of what it did not like than a broken pipe does.
async fn follow(mut answers: Streaming<wire::ImportModelProgress>, mut shown: Shown) -> Result<Option<Model>, Failure> {
    let mut done = None;
    while let Some(answer) = answers.message().await? {
        match answer.message {
            Some(import_model_progress::Message::Received(received)) => shown.received(received),
            Some(import_model_progress::Message::Step(step)) => shown.step(&step),
            Some(import_model_progress::Message::Done(model)) => done = Some(Model::try_from(model)?),
            None => {}
        }
    }
    shown.finish();
    Ok(done)
}

async fn send<M>(mut content: File, messages: &mpsc::Sender<M>, message: impl Fn(RawBytes) -> M) -> io::Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            if content.read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        if chunk.is_empty() {
            return Ok(());
        }
        if messages.send(message(chunk.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

/// Progress on standard error: a bar on a terminal, a line for each step elsewhere.
struct Shown {
    label: String,
    size: u64,
    bar: Option<ProgressBar>,
    step: String,
    quarter: u64,
}

impl Shown {
    fn new(label: String, size: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "{msg:<40} {bar:30} {percent:>3} %  {elapsed}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1000).with_style(style)
        });
        Self { label, size, bar, step: String::new(), quarter: 0 }
    }

    fn show(&mut self, step: String, fraction: f64) {
        if let Some(bar) = &self.bar {
            bar.set_message(step);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
        } else if self.step != step {
            Output::hint(&step);
            self.step = step;
        }
    }

    fn received(&mut self, received: u64) {
        let fraction = if self.size == 0 { 1.0 } else { received as f64 / self.size as f64 };
        let step = format!("receiving {}", self.label);
        if self.bar.is_none() {
            let quarter = received.saturating_mul(4) / self.size.max(1);
            if quarter > self.quarter && self.size > 64 << 20 {
                self.quarter = quarter;
                Output::hint(&format!("{step}: {} of {}", Bytes::new(received), Bytes::new(self.size)));
                self.step.clone_from(&step);
            }
        }
        self.show(step, fraction);
    }

    fn step(&mut self, step: &wire::ImportStep) {
        let words: String = format!("{} {}", step.what, step.subject).chars().filter(|c| !c.is_control()).collect();
        self.show(words, step.fraction);
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
