//! `muster-agent chat`: a client of this desk's own endpoint. Nothing of a conversation is kept.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes as RawBytes;
use http::{Request as HttpRequest, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::Context;
use super::args::ChatArgs;
use super::status::ask;
use crate::control::{Reply, Request};

/// Answers one question, or talks until the end of the input.
pub async fn run(context: &Context, args: ChatArgs) -> anyhow::Result<ExitCode> {
    let Reply::Ps { models } = ask(context, Request::Ps).await? else { bail!("the agent did not list its models") };
    let Reply::Status(status) = ask(context, Request::Status).await? else { bail!("the agent did not say how it is") };
    let endpoint = status.endpoint.context("this desk has no endpoint")?;
    let address: SocketAddr = endpoint
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/v1"))
        .and_then(|address| address.parse().ok())
        .with_context(|| format!("cannot understand the endpoint {endpoint}"))?;
    let model = match (&args.model, models.as_slice()) {
        (Some(model), _) => model.clone(),
        (None, [only]) => only.model.clone(),
        (None, []) => bail!("no model is assigned to this desk yet: see `muster-agent status`"),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|process| process.model.as_str()).collect();
            bail!("this desk has several models: choose one with --model: {}", names.join(", "))
        }
    };
    let mut conversation = Conversation { address, model, args, messages: Vec::new() };
    if let Some(system) = conversation.args.system.clone() {
        conversation.messages.push(json!({ "role": "system", "content": system }));
    }
    if !conversation.args.prompt.is_empty() {
        let prompt = conversation.args.prompt.join(" ");
        conversation.say(&prompt).await?;
        return Ok(ExitCode::SUCCESS);
    }
    conversation.talk().await
}

struct Conversation {
    address: SocketAddr,
    model: String,
    args: ChatArgs,
    messages: Vec<Value>,
}

impl Conversation {
    async fn talk(&mut self) -> anyhow::Result<ExitCode> {
        let terminal = io::stdin().is_terminal();
        if terminal {
            eprintln!("{}: type a message; Ctrl-D ends", self.model);
        }
        loop {
            if terminal {
                eprint!("> ");
            }
            let line = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(|length| (length > 0).then_some(line))
            })
            .await??;
            let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
            if line.trim().is_empty() {
                continue;
            }
            if let Err(error) = self.say(line.trim()).await {
                if !terminal {
                    return Err(error);
                }
                eprintln!("error: {}", super::output::chain(&error));
                self.messages.pop();
            }
        }
    }

    /// Sends a message, writes the answer as it comes, and remembers both.
    async fn say(&mut self, prompt: &str) -> anyhow::Result<()> {
        self.messages.push(json!({ "role": "user", "content": prompt }));
        let mut body = json!({ "model": self.model, "messages": self.messages, "stream": true });
        if let Some(temperature) = self.args.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(max_tokens) = self.args.max_tokens {
            body["max_tokens"] = json!(max_tokens);
        }
        let mut answer = self.ask(&body).await?;
        let mut stdout = io::stdout();
        let mut text = String::new();
        while let Some(event) = answer.next().await? {
            if let Some(message) = event["error"]["message"].as_str() {
                bail!("{message}");
            }
            if let Some(content) = event["choices"][0]["delta"]["content"].as_str() {
                stdout.write_all(content.as_bytes())?;
                stdout.flush()?;
                text.push_str(content);
            }
        }
        stdout.write_all(b"\n")?;
        self.messages.push(json!({ "role": "assistant", "content": text }));
        Ok(())
    }

    async fn ask(&self, body: &Value) -> anyhow::Result<Events> {
        let stream = tokio::net::TcpStream::connect(self.address).await.context("cannot reach this desk's endpoint")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let request = HttpRequest::post("/v1/chat/completions")
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(RawBytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            let body = response.into_body().collect().await?.to_bytes();
            let error: Value = serde_json::from_slice(&body).unwrap_or_default();
            return Err(anyhow!(
                "{}",
                error["error"]["message"].as_str().unwrap_or("the endpoint refused without a reason")
            ));
        }
        Ok(Events { body: response.into_body(), buffer: Vec::new(), _connection: connection })
    }
}

/// Server-sent events of an answer.
struct Events {
    body: Incoming,
    buffer: Vec<u8>,
    _connection: AbortOnDropHandle<()>,
}

impl Events {
    /// The next event; `None` at the end mark.
    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = std::str::from_utf8(&event)?.trim_end();
                match text.strip_prefix("data: ") {
                    Some("[DONE]") => return Ok(None),
                    Some(data) => return Ok(Some(serde_json::from_str(data)?)),
                    None => continue,
                }
            }
            match self.body.frame().await {
                None => bail!("the answer broke off"),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
