use super::*;
use crate::args::ModelArgs;

/// The layers of `serve` with the file's text and these flags.
fn load_with(text: &str, flags: &[&str]) -> Result<Configured, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_string_lossy().into_owned();
    let arguments = ["sd-worker", "serve", "--config", &path].into_iter().chain(flags.iter().copied());
    load(&arguments.map(OsString::from).collect::<Vec<_>>()).map_err(|unusable| match unusable {
        Unusable::CommandLine(error) => error.to_string(),
        Unusable::File(failure) => failure.message,
    })
}

fn setting_of(configured: &Configured, key: &str) -> Setting {
    configured.settings.settings.iter().find(|setting| setting.key == key).unwrap().clone()
}

fn serve_args(configured: &Configured) -> &ServeArgs {
    match &configured.cli.command {
        args::Command::Serve(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_stand_above_the_file_and_the_file_above_the_defaults() {
    let text = "queue-capacity = 7\nthreads = 3\nlisten = \"127.0.0.1:1\"\n";
    let configured = load_with(text, &["--listen=127.0.0.1:2"]).unwrap();
    let args = serve_args(&configured);
    assert_eq!((args.queue_capacity, configured.cli.threads), (7, Some(3)));
    assert_eq!(args.listen.to_string(), "127.0.0.1:2");
    assert_eq!(setting_of(&configured, "listen").source, Source::Flag);
    assert!(
        matches!(setting_of(&configured, "threads").source, Source::File(place) if place.ends_with("c.toml:2"))
    );
    assert_eq!(setting_of(&configured, "dtype").source, Source::Default);
    assert_eq!(setting_of(&configured, "dtype").values, ["auto"]);
}

/// A list is taken as it stands: what separates values elsewhere is part of them.
#[test]
fn lists_are_taken_as_they_stand_and_switched_as_a_whole() {
    let configured = load_with("controlnet = [\"a=x;y\", \"b=z\"]\n", &[]).unwrap();
    let nets: Vec<_> = serve_args(&configured).nets.controlnet.iter().map(|net| net.path.clone()).collect();
    assert_eq!(nets, [PathBuf::from("x;y"), PathBuf::from("z")]);
    let configured = load_with("controlnet = [\"a=x\", \"b=z\"]\n", &["--controlnet=c=w"]).unwrap();
    assert_eq!(serve_args(&configured).nets.controlnet.len(), 1);
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_key() {
    for (text, parts) in [
        (
            "queue_capacity = 3\n",
            &["c.toml:1", "no key `queue_capacity`", "did you mean `queue-capacity`"][..],
        ),
        (
            "\nquue-capacity = 3\nxyzzy = 1\n",
            &["c.toml:2", "c.toml:3", "did you mean `queue-capacity`", "`xyzzy`"],
        ),
        ("queue-capacity = 0\n", &["c.toml:1", "queue-capacity", "`0`", "1.."]),
        ("queue-capacity = [1]\n", &["c.toml:1", "takes one value"]),
        ("dtype = \"f64\"\n", &["c.toml:1", "dtype", "`f64`", "bf16"]),
        ("config = \"other.toml\"\n", &["no key `config`"]),
        ("help = true\n", &["no key `help`"]),
        ("prompt = \"x\"\n", &["no key `prompt`"]),
    ] {
        let error = load_with(text, &[]).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?}: {part:?} is not in {error:?}");
        }
    }
    let error = load_with("token = \"a b\"\n", &["--queue-capacity=0"]).unwrap_err();
    assert!(error.contains("--queue-capacity") && !error.contains("c.toml"), "{error}");
}

/// Whatever flag is added to `serve`, the file can hold it: what `config` prints of a value is read back as that value.
#[test]
fn every_flag_of_serve_is_a_key() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let flags = serve.get_arguments().filter_map(Arg::get_long).filter(|long| !NO_KEYS.contains(long));
    let known: Vec<String> = keys().iter().map(|arg| key(arg).unwrap().to_owned()).collect();
    for flag in flags {
        assert!(known.iter().any(|key| key == flag), "{flag}");
    }
    for global in ["threads", "log-format", "log"] {
        assert!(known.iter().any(|key| key == global), "{global}");
    }
}

#[test]
fn a_switch_becomes_a_flag_without_a_value() {
    let arg = Arg::new("s").long("s").action(ArgAction::SetTrue);
    let entry = |value: &str| Entry { key: "s".into(), values: vec![value.into()], is_list: false, line: 1 };
    assert_eq!(flags(&arg, &entry("true")), ["--s"]);
    assert_eq!(flags(&arg, &entry("false")), Vec::<OsString>::new());
}

/// What one flag needs beside it may come from the file, and the other way round.
#[test]
fn layers_are_checked_together() {
    let both = "tls-cert = \"c.pem\"\ntls-key = \"k.pem\"\n";
    assert!(load_with(both, &[]).is_ok());
    let configured = load_with("tls-key = \"k.pem\"\n", &["--tls-cert=d.pem"]).unwrap();
    assert_eq!(setting_of(&configured, "tls-cert").values, ["d.pem"]);
    let alone = load_with("tls-cert = \"c.pem\"\n", &[]).unwrap_err();
    assert!(alone.contains("c.toml") && alone.contains("--tls-key"), "{alone}");
    let two = load_with("tokens-file = \"t\"\n", &["--token=s3cret"]).unwrap_err();
    assert!(two.contains("c.toml") && two.contains("--tokens-file") && !two.contains("s3cret"), "{two}");
}

/// The ids of the models that a service has with this file and these flags, and what they are loaded with.
fn models(text: &str, flags: &[&str]) -> Vec<crate::model_set::ModelSetup> {
    serve_args(&load_with(text, flags).unwrap()).models()
}

#[test]
fn each_table_is_a_model_with_settings_of_its_own() {
    let text = "dtype = \"f32\"\nlora-dir = \"/l\"\nvae-tiling = \"never\"\n\
        [[models]]\nname = \"one\"\nmodel = \"/m;1\"\nvae = \"/v\"\ncontrolnet = [\"a=x;y\"]\n\
        [[models]]\nmodel = \"two\"\ndtype = \"bf16\"\nlora-dir = \"/k\"\nrefiner = \"r\"\n";
    let told = models(text, &["--device=cuda:1", "--memory-limit=1GB"]);
    assert_eq!(told.iter().map(|model| model.id()).collect::<Vec<_>>(), ["one", "two"]);
    let [one, two] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one.args.name(), two.args.name()), ("/m;1", "two"));
    assert_eq!((one.args.place.vae.as_deref(), two.args.place.vae.as_deref()), (Some("/v"), None));
    assert_eq!((one.nets.controlnet[0].path.clone(), two.nets.controlnet.len()), (PathBuf::from("x;y"), 0));
    assert_eq!((one.args.refiner.as_deref(), two.args.refiner.as_deref()), (None, Some("r")));
    let dtypes = [one, two].map(|model| format!("{:?}", model.args.dtype));
    assert_eq!(dtypes, ["F32", "Bf16"]);
    let folders = [one, two].map(|model| model.args.lora_dir.clone().unwrap());
    assert_eq!(folders, ["/l", "/k"].map(PathBuf::from));
    // What is the worker's counts for all.
    for model in [one, two] {
        assert_eq!(model.args.device.to_string(), "cuda:1");
        assert!(model.args.memory_limit.is_some());
        assert_eq!(format!("{:?}", model.args.vae_tiling), "Never");
    }
}

#[test]
fn tables_stand_beside_the_models_that_are_named_and_alone_where_none_is() {
    let table = "[[models]]\nname = \"t\"\nmodel = \"demo\"\n";
    let ids = |text: &str, flags: &[&str]| -> Vec<String> {
        models(text, flags).iter().map(|model| model.id().to_owned()).collect()
    };
    assert_eq!(ids(table, &[]), ["t"]);
    assert_eq!(ids(&format!("model = [\"a\", \"b\"]\n{table}"), &[]), ["a", "b", "t"]);
    assert_eq!(ids(table, &["--model=a"]), ["a", "t"]);
    assert_eq!(ids("queue-capacity = 1\n", &[]), ["demo"]);
    // What belongs to one model counts for the first that is named, not for a table.
    let told = models(&format!("vae = \"/v\"\nmodel = \"a\"\n{table}"), &[]);
    assert_eq!([0, 1].map(|index| told[index].args.place.vae.is_some()), [true, false]);
    let error = load_with(&format!("vae = \"/v\"\n{table}"), &["--refiner=r"]).unwrap_err();
    assert!(error.contains("vae, refiner: belongs to one model"), "{error}");
}

#[test]
fn what_is_wrong_in_a_table_is_told_with_file_line_and_key() {
    for (text, parts) in [
        (
            "[[models]]\nmodel = \"a\"\nrefinr = \"x\"\n",
            &["c.toml:3", "no key `refinr`", "did you mean `refiner`"][..],
        ),
        ("[[models]]\nmodel = \"a\"\ndtype = \"f64\"\n", &["c.toml:3", "dtype", "`f64`", "bf16"]),
        ("a = 1\n", &["no key `a`"]),
        ("threads = 1\n[[models]]\nname = \"x\"\n", &["c.toml:2", "lacks the key `model`"]),
        ("[[models]]\nmodel = [\"a\", \"b\"]\n", &["c.toml:2", "model takes one value"]),
        ("[[models]]\nmodel = \"a\"\nname = \"\"\n", &["c.toml:3", "name"]),
        ("[[models]]\nmodel = \"a\"\ndevice = \"cpu\"\n", &["c.toml:3", "no key `device`"]),
        ("[[models]]\nmodel = \"a\"\nqueue-capacity = 1\n", &["c.toml:3", "no key `queue-capacity`"]),
        ("[[models]]\nmodel = \"a\"\ncontrolnet = \"x\"\n", &["c.toml:3", "controlnet", "NAME=PATH"]),
    ] {
        let error = load_with(text, &[]).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?}: {part:?} is not in {error:?}");
        }
    }
}

/// Whatever says how a model is loaded can be said for each, save for what is the whole worker's.
#[test]
fn every_flag_about_a_model_is_a_key_of_a_table() {
    let mut known: Vec<String> = tables::keys().iter().map(|arg| key(arg).unwrap().to_owned()).collect();
    known.extend(["device", "memory-limit", "models-file"].map(str::to_owned));
    for flag in ModelArgs::augment_args(Command::new("x")).get_arguments().filter_map(Arg::get_long) {
        assert!(known.iter().any(|key| key == flag), "{flag}");
    }
    assert!(tables::keys().iter().all(|arg| arg.get_env().is_none()), "the environment is not a table's");
}
