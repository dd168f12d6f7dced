//! Plans over trees that are in memory.

use std::collections::BTreeMap;

use maddock_sdk::serde_json::json;
use maddock_sdk::types::ErrorKind;

use super::*;

#[derive(Default)]
struct Memory {
    files: BTreeMap<String, String>,
    secrets: BTreeMap<String, Vec<String>>,
}

impl Memory {
    fn with(files: &[(&str, &str)]) -> Self {
        let mut memory = Self::default();
        for (path, text) in files {
            memory.files.insert((*path).to_owned(), (*text).to_owned());
        }
        memory
    }

    fn secret(mut self, name: &str, members: &[&str]) -> Self {
        self.secrets.insert(name.to_owned(), members.iter().map(|member| (*member).to_owned()).collect());
        self
    }
}

impl Tree for Memory {
    fn files(&self, directory: &str) -> Result<Vec<String>> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        Ok(self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter(|rest| !rest.contains('/'))
            .map(str::to_owned)
            .collect())
    }

    fn read(&self, path: &str) -> Result<String> {
        self.files.get(path).cloned().ok_or_else(|| not_found(path))
    }

    fn has_directory(&self, path: &str) -> Result<bool> {
        Ok(path == "." || self.files.keys().any(|file| file.starts_with(&format!("{path}/"))))
    }

    fn secret_members(&self, name: &str) -> Vec<String> {
        self.secrets.get(name).cloned().unwrap_or_default()
    }
}

fn card(name: &str, model: Value) -> Card {
    Card { name: name.to_owned(), tags: Vec::new(), source: "models.json".to_owned(), model: model.to_string() }
}

fn request(context: Value, cards: Vec<Card>) -> BuildRequest {
    BuildRequest {
        run_id: "r".into(),
        tree: "/mad".into(),
        cards,
        context: context.to_string(),
        architectures: Vec::new(),
        no_cache: false,
        registry: None,
        log_directory: "/r/logs".into(),
        extra: Vec::new(),
    }
}

fn amd() -> Value {
    json!({"gpu_vendor": "AMD", "guest_os": "UBUNTU"})
}

fn dummy() -> Vec<Card> {
    vec![card("dummy", json!({"dockerfile": "docker/dummy"}))]
}

const AMD: (&str, &str) = (
    "docker/dummy.ubuntu.amd.Dockerfile",
    "# CONTEXT {'gpu_vendor': 'AMD'}\nARG BASE_DOCKER=rocm/x\nFROM $BASE_DOCKER\n",
);

fn details(image: &ImagePlan) -> Details {
    Details::read(&image.details).unwrap()
}

#[test]
fn a_dockerfile_that_fits_becomes_an_image() {
    let nvidia = ("docker/dummy.ubuntu.nvidia.Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}\n");
    let other = ("docker/dummy2.Dockerfile", "");
    let mut context = amd();
    context["docker_build_arg"] = json!({"A": "it's", "B": 1, "C": true});
    let plan = plan(&request(context, dummy()), &Memory::with(&[AMD, nvidia, other])).unwrap();
    assert_eq!((plan.images.len(), plan.problems.len(), plan.warnings.len()), (1, 0, 0), "{plan:?}");
    let image = &plan.images[0];
    assert_eq!(image.key, "ci-dummy_dummy.ubuntu.amd");
    assert_eq!(image.log_file, "dummy_dummy.ubuntu.amd.build.live.log");
    let details = details(image);
    assert_eq!((details.base.as_str(), details.gpu_vendor.as_str()), ("rocm/x", "AMD"));
    assert_eq!(
        details.command,
        "docker build --network=host -t ci-dummy_dummy.ubuntu.amd --pull -f docker/dummy.ubuntu.amd.Dockerfile \
         --build-arg 'A=it'\\''s' --build-arg B=1 --build-arg C=True ./docker"
    );
    let paths: Vec<&str> =
        image.plan.steps[0].scope.iter().filter(|e| e.name == "path").map(|e| e.value.as_str()).collect();
    assert_eq!(paths, ["/mad/docker", "/mad/docker/dummy.ubuntu.amd.Dockerfile"]);
    assert_eq!(image.plan.steps[1].call, "docker.registry-digest");
}

#[test]
fn a_dockerfile_without_a_header_fits_and_a_malformed_one_is_left_out() {
    let files = [("docker/dummy.a.Dockerfile", "FROM x"), ("docker/dummy.b.Dockerfile", "# CONTEXT {'x': true}\n")];
    let plan = plan(&request(amd(), dummy()), &Memory::with(&files)).unwrap();
    assert_eq!(plan.images.len(), 1);
    assert!(plan.warnings[0].contains("`docker/dummy.b.Dockerfile`"), "{:?}", plan.warnings);
}

#[test]
fn a_model_without_a_dockerfile_is_a_problem() {
    let none = plan(&request(amd(), dummy()), &Memory::with(&[("docker/other.Dockerfile", "")])).unwrap();
    assert_eq!(none.problems[0].error.kind, ErrorKind::NotFound);
    let unfit = [("docker/dummy.Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}\n")];
    let unfit = plan(&request(amd(), dummy()), &Memory::with(&unfit)).unwrap();
    assert!(unfit.problems[0].error.message.contains("no Dockerfile that fits"), "{unfit:?}");
    let unnamed = plan(&request(amd(), vec![card("m", json!({}))]), &Memory::default()).unwrap();
    assert_eq!((unnamed.images.len(), unnamed.problems.len()), (0, 1));
}

#[test]
fn every_architecture_has_its_image() {
    let mut request = request(amd(), dummy());
    request.architectures = vec!["gfx90a".into(), "mi300x".into()];
    let plan = plan(&request, &Memory::with(&[AMD])).unwrap();
    let keys: Vec<&str> = plan.images.iter().map(|image| image.key.as_str()).collect();
    assert_eq!(keys, ["ci-dummy_dummy.ubuntu.amd_gfx90a", "ci-dummy_dummy.ubuntu.amd_mi300x"]);
    assert_eq!(details(&plan.images[1]).gpu_architecture.as_deref(), Some("gfx942"));
    assert!(details(&plan.images[0]).command.contains("--build-arg MAD_SYSTEM_GPU_ARCHITECTURE=gfx90a ./docker"));
}

#[test]
fn an_architecture_of_the_context_beats_those_asked_for() {
    let mut context = amd();
    context["docker_build_arg"] = json!({"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx942"});
    let mut request = request(context, dummy());
    request.architectures = vec!["gfx90a".into()];
    let plan = plan(&request, &Memory::with(&[AMD])).unwrap();
    assert_eq!((plan.images.len(), plan.warnings.len()), (1, 1));
    assert_eq!(plan.images[0].key, "ci-dummy_dummy.ubuntu.amd");
    assert_eq!(details(&plan.images[0]).gpu_architecture.as_deref(), Some("gfx942"));
}

#[test]
fn the_architecture_of_the_dockerfile_is_recorded_and_a_missing_one_warned_of() {
    let with = |line: &str| {
        let text = format!("{}{line}\n", AMD.1);
        let plan = plan(&request(amd(), dummy()), &Memory::with(&[(AMD.0, &text)])).unwrap();
        (details(&plan.images[0]).gpu_architecture, plan.warnings.len())
    };
    assert_eq!(with("ARG MAD_SYSTEM_GPU_ARCHITECTURE=gfx908"), (Some("gfx908".to_owned()), 0));
    assert_eq!(with("ARG MAD_SYSTEM_GPU_ARCHITECTURE=\"gfx908;gfx90a\""), (None, 0));
    assert_eq!(with("ARG MAD_SYSTEM_GPU_ARCHITECTURE"), (None, 1));
}

#[test]
fn the_context_directory_follows_the_card() {
    let with = |model: Value| {
        let files = [AMD, ("docker/primus.Dockerfile", ""), ("other/x", "")];
        let plan = plan(&request(amd(), vec![card("m", model)]), &Memory::with(&files)).unwrap();
        plan.images.first().map(|image| details(image).context)
    };
    assert_eq!(with(json!({"dockerfile": "docker/dummy"})).as_deref(), Some("docker"));
    assert_eq!(with(json!({"dockerfile": "docker/primus"})).as_deref(), Some("."));
    assert_eq!(with(json!({"dockerfile": "docker/dummy", "dockercontext": "./other/"})).as_deref(), Some("other"));
    assert_eq!(with(json!({"dockerfile": "docker/dummy", "dockercontext": "none"})), None);
}

#[test]
fn the_tools_context_is_there_when_its_directory_is() {
    let files = [AMD, ("docker/common/tool.sh", "")];
    let plan = plan(&request(amd(), dummy()), &Memory::with(&files)).unwrap();
    let details = details(&plan.images[0]);
    assert!(details.tools && details.command.contains("--build-context tools=docker/common -t"), "{}", details.command);
}

const SECRET: (&str, &str) =
    ("docker/dummy.Dockerfile", "ARG KEY_TOKEN\nARG MAD_SECRETS_HF\nRUN --mount=type=secret,id=KEY_USERNAME true\n");

fn secretive(model: Value) -> BuildPlan {
    let mut context = amd();
    context["docker_build_arg"] =
        json!({"MAD_SECRETS_OTHER": "hunter2", "MAD_SECRETS_HF": {"secret": "env/MAD_SECRETS_HF"}});
    let tree = Memory::with(&[SECRET]).secret("credential", &["KEY"]).secret("credential/KEY", &["username", "token"]);
    plan(&request(context, vec![card("m", model)]), &tree).unwrap()
}

#[test]
fn credentials_are_build_secrets() {
    let plan = secretive(json!({"dockerfile": "docker/dummy", "cred": "KEY"}));
    let details = details(&plan.images[0]);
    assert_eq!(details.secrets, [("KEY_USERNAME".to_owned(), "credential/KEY/username".to_owned())]);
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    assert!(details.command.ends_with("--build-arg MAD_SECRETS_OTHER --secret id=KEY_USERNAME ./docker"));
}

#[test]
fn credentials_as_arguments_must_be_asked_for() {
    let plan = secretive(json!({"dockerfile": "docker/dummy", "cred": "KEY", "cred_build_args": true}));
    let details = details(&plan.images[0]);
    let expected = [
        ("MAD_SECRETS_OTHER".to_owned(), Source::Context("MAD_SECRETS_OTHER".to_owned())),
        ("KEY_TOKEN".to_owned(), Source::Secret("credential/KEY/token".to_owned())),
        ("MAD_SECRETS_HF".to_owned(), Source::Secret("env/MAD_SECRETS_HF".to_owned())),
    ];
    assert_eq!(details.arguments, expected);
    assert_eq!(plan.warnings.len(), 2);
}

#[test]
fn a_plan_holds_no_secret() {
    let plan = format!("{:?}", secretive(json!({"dockerfile": "docker/dummy", "cred": "KEY"})));
    assert!(!plan.contains("hunter2"), "{plan}");
}

#[test]
fn a_secret_of_the_context_is_found_again_when_building() {
    let plan = secretive(json!({"dockerfile": "docker/dummy"}));
    let details = details(&plan.images[0]);
    let context = json!({"docker_build_arg": {"MAD_SECRETS_OTHER": "hunter2"}});
    let Value::Object(context) = context else { panic!() };
    let expected = EnvVar { name: "MAD_SECRETS_OTHER".into(), value: EnvValue::Text("hunter2".into()) };
    assert_eq!(details.variables(&context).unwrap(), [expected]);
    assert!(details.variables(&Map::new()).is_err());
}

#[test]
fn credentials_that_are_not_there_fail_the_model_unless_there_are_none_at_all() {
    let with = |tree: Memory| {
        let cards = vec![card("m", json!({"dockerfile": "docker/dummy", "cred": "OTHER"}))];
        plan(&request(amd(), cards), &tree).unwrap()
    };
    assert_eq!(with(Memory::with(&[SECRET])).images.len(), 1);
    let problem = with(Memory::with(&[SECRET]).secret("credential", &["KEY"]));
    assert!(problem.problems[0].error.message.contains("`OTHER`"), "{problem:?}");
}

#[test]
fn one_image_is_built_once_and_never_for_two_models() {
    let cards = |second: &str| {
        vec![card("m", json!({"dockerfile": "docker/dummy"})), card(second, json!({"dockerfile": "docker/dummy"}))]
    };
    let twice = plan(&request(amd(), cards("m")), &Memory::with(&[AMD])).unwrap();
    assert_eq!((twice.images.len(), twice.problems.len(), twice.warnings.len()), (1, 0, 1));
    let clash = plan(&request(amd(), cards("M")), &Memory::with(&[AMD])).unwrap();
    assert_eq!((clash.images.len(), clash.problems.len()), (1, 1));
}

#[test]
fn a_name_that_no_engine_takes_is_a_problem() {
    let cards = vec![card("m +", json!({"dockerfile": "docker/dummy"}))];
    let plan = plan(&request(amd(), cards), &Memory::with(&[AMD])).unwrap();
    assert_eq!((plan.images.len(), plan.problems.len()), (0, 1));
}

#[test]
fn the_keys_of_headers_are_known_and_those_of_other_models_are_not() {
    let files = [
        ("docker/dummy.a", "# CONTEXT {'gpu_vendor': 'AMD', 'flavour': 'x'}\n"),
        ("docker/dummy.b", "# CONTEXT {'gpu_vendor': 'NVIDIA'}\n# CONTEXT {'tier': 1}\n"),
        ("docker/dummy.c", "# CONTEXT {'broken'\n"),
        ("docker/other.a", "# CONTEXT {'secret_sauce': 1}\n"),
    ];
    let mut cards = dummy();
    cards.push(card("m", json!({"dockerfile": ""})));
    assert_eq!(context_keys(&cards, &Memory::with(&files)), ["flavour", "gpu_vendor", "tier"]);
}
