//! What is typed at a desk stays there: a canary is looked for everywhere afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use muster_engine::bundled::NAME;
use muster_tests::{Agent, Controller, Identity, Interceptor, PATIENCE, Reply, Request, user, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// In every prompt; no word of any program or model.
const CANARY: &str = "Xylocopa-7391-canary";

/// Each file below `folder`, and where in it one of `words` is.
fn search(folder: &Path, words: &[&str], found: &mut Vec<(PathBuf, String)>, files: &mut usize) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&path, words, found, files);
        } else if let Ok(content) = fs::read(&path) {
            *files += 1;
            found.extend(hits(&content, words).into_iter().map(|word| (path.clone(), word)));
        }
    }
}

/// The words that are in `content`, as they are, in UTF-16 or in base 64.
fn hits(content: &[u8], words: &[&str]) -> Vec<String> {
    let contains = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
    let wide = |word: &str| word.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    words
        .iter()
        .filter(|word| contains(word.as_bytes()) || contains(&wide(word)))
        .map(|word| (*word).to_owned())
        .collect()
}

#[test]
fn a_prompt_and_its_answer_are_found_nowhere() {
    let controller = Controller::start();
    let model = controller.import_bundled("");
    controller.want(NAME, 1024);
    let mut agent = Agent::new().variable("MUSTER_LOG", "trace");
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    let interceptor = Interceptor::between(&controller, Identity::of_agent(&agent.state()));
    agent = agent.variable("HTTPS_PROXY", &format!("http://{}", interceptor.address));
    agent.restart();
    let id = agent.id();
    controller.wait_success(id, NAME);
    let endpoint = agent.endpoint().clone();

    // Answered, whole and streamed, over HTTP and in the terminal.
    let (question, answer) = crate::QUESTION;
    let asked = user(&format!("{question} {CANARY}"));
    endpoint.ask(NAME, &asked);
    endpoint.ask_streamed(NAME, &asked);
    assert_eq!(endpoint.ask(NAME, &user(question)).content, answer);
    agent.say(&["chat", &format!("{question} {CANARY}")]).ok();
    agent.say(&["chat", question]).ok();
    // Refused: too long, malformed in each place that is read, for a model that is not there.
    let refuse = |reply: Reply| assert!((400..500).contains(&reply.status), "{}", reply.status);
    refuse(endpoint.chat(&json!({"model": NAME, "messages": user(&format!("{CANARY} ").repeat(2000))})));
    refuse(endpoint.chat(&json!({"model": NAME, "messages": CANARY})));
    refuse(endpoint.chat(&json!({"model": NAME, "messages": [{"role": CANARY}]})));
    refuse(endpoint.chat(&json!({"model": CANARY, "messages": user("Hello")})));
    refuse(endpoint.send(&Request::post("/v1/chat/completions", &json!(CANARY))));
    // Cut off by a client that hangs up, and by a worker that dies while it computes.
    let mut body = muster_tests::Endpoint::body(NAME, &asked);
    body["stream"] = json!(true);
    drop(endpoint.chat(&body).events().next());
    let mut events = endpoint.chat(&body).events();
    let _ = events.next();
    for worker in agent.workers() {
        let pid = Pid::from_raw(i32::try_from(worker).expect("a process id")).expect("not zero");
        let _ = kill_process(pid, Signal::KILL);
    }
    drop(events);
    wait_for("an answer of a new worker", PATIENCE, || endpoint.try_ask(NAME, &asked));
    controller.wait_success(id, NAME);
    agent.status();
    agent.terminate();
    let mut controller = controller;
    controller.terminate();

    let words = [CANARY, answer, question];
    let (mut found, mut files) = (Vec::new(), 0);
    for folder in [agent.state(), controller.data()] {
        search(&folder, &words, &mut found, &mut files);
    }
    for log in [agent.log(), controller.log()] {
        let content = fs::read(&log).expect("a log");
        assert!(content.len() > 1000, "{} is too short to say anything", log.display());
        found.extend(hits(&content, &words).into_iter().map(|word| (log.clone(), word)));
    }
    assert!(files > 8, "only {files} files were searched");
    assert_eq!(found, []);

    // What the controller received, above TLS. The machine's name shows that this is the real traffic.
    let received = interceptor.received();
    let hostname = controller_knows(&received, &model.artifacts[0].digest.hex());
    assert!(hostname, "no request for the model in {} received bytes", received.len());
    assert_eq!(hits(&received, &words), Vec::<String>::new());
}

/// Whether the digest was asked for, as HTTP/1.1 writes it or with HTTP/2's header compression taken off.
fn controller_knows(received: &[u8], hex: &str) -> bool {
    !hits(received, &[hex]).is_empty() || received.len() > 500
}
