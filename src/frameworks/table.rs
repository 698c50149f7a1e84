//! The table of frameworks: how each dev server takes its port. `docs/frameworks.md` is made from it, and
//! `scripts/frameworks` tries its rows.

use crate::frameworks::framework::{Binds, Framework, Language, Reads, WhenTaken};

const PORT: Reads = Reads::Variable("PORT");
const LONG: &[&str] = &["--port", "$PORT"];
const OPTIONS: &[&str] = &["--port", "-p"];
const HOST: &[&str] = &["--host", "127.0.0.1"];

/// A dev server of npm with nothing but `--port`.
const PLAIN: Framework = Framework {
    name: "",
    language: Language::JavaScript,
    programs: &[],
    packages: &[],
    command: "",
    reads: Reads::Nothing,
    default_port: 3000,
    arguments: LONG,
    strict: &[],
    port_options: OPTIONS,
    when_taken: WhenTaken::Exits,
    binds: Binds::ThisMachine,
    tried: None,
    note: "",
};
const PYTHON: Framework = Framework { language: Language::Python, default_port: 8000, ..PLAIN };
const OTHER: Framework = Framework { language: Language::Other, reads: PORT, ..PLAIN };
const VITE: Framework = Framework {
    name: "Vite",
    programs: &["vite"],
    packages: &["vite"],
    command: "vite",
    default_port: 5173,
    strict: &["--strictPort"],
    when_taken: WhenTaken::Moves,
    tried: Some("8.3"),
    note: "The same for its Vue, Svelte, Solid, React, Preact, Lit and Qwik templates. A bare number is taken for the root \
           directory: Vite then serves 404 on 5173.",
    ..PLAIN
};
/// An HTTP framework without a dev server.
const LIBRARY: Framework = Framework {
    command: "node server.js",
    reads: Reads::AppCode,
    arguments: &[],
    note: "The app's code decides: `listen(process.env.PORT ?? 3000, '127.0.0.1')`.",
    ..PLAIN
};

/// Every framework. Of two rows with the same program, the app's dependencies decide; the first is the default.
pub(super) const FRAMEWORKS: &[Framework] = &[
    VITE,
    Framework {
        name: "SvelteKit",
        packages: &["@sveltejs/kit"],
        command: "vite dev",
        tried: Some("3.2"),
        note: "",
        ..VITE
    },
    Framework {
        name: "React Router",
        programs: &["react-router dev"],
        packages: &["@react-router/dev"],
        command: "react-router dev",
        tried: Some("8.4"),
        note: "Formerly Remix.",
        ..VITE
    },
    Framework {
        name: "VitePress",
        programs: &["vitepress"],
        packages: &["vitepress"],
        command: "vitepress dev",
        tried: Some("1.6"),
        note: "",
        ..VITE
    },
    Framework {
        name: "Astro",
        programs: &["astro"],
        packages: &["astro"],
        command: "astro dev",
        default_port: 4321,
        when_taken: WhenTaken::Moves,
        tried: Some("7.3"),
        note: "No strict option. In the shell of a coding agent it starts a background server and exits; devport follows \
               that server, and does not pass the agent's variables to it.",
        ..PLAIN
    },
    Framework {
        name: "Rsbuild",
        programs: &["rsbuild"],
        packages: &["@rsbuild/core"],
        command: "rsbuild dev",
        strict: &["--strict-port"],
        when_taken: WhenTaken::Moves,
        tried: Some("2.3"),
        ..PLAIN
    },
    Framework {
        name: "Next.js",
        programs: &["next", "next-server"],
        packages: &["next"],
        command: "next dev",
        reads: PORT,
        binds: Binds::All(&["-H", "127.0.0.1"]),
        tried: Some("16.4"),
        note: "`-p` in the script overrides PORT. `PORT` in a `.env` file is read too late.",
        ..PLAIN
    },
    Framework {
        name: "Nuxt",
        programs: &["nuxt", "nuxi"],
        packages: &["nuxt", "nuxi", "@nuxt/cli"],
        command: "nuxt dev",
        reads: PORT,
        when_taken: WhenTaken::Moves,
        tried: Some("4.5"),
        binds: Binds::All(HOST),
        note: "Moves to 3000, without a strict option. `NUXT_PORT` is read as well.",
        ..PLAIN
    },
    Framework {
        name: "Angular",
        programs: &["ng serve", "ng dev"],
        packages: &["@angular/cli"],
        command: "ng serve",
        reads: PORT,
        default_port: 4200,
        port_options: &["--port"],
        when_taken: WhenTaken::Prompts,
        tried: Some("22.2"),
        note: "Earlier versions do not read PORT: `ng serve --port $PORT`. Without a terminal it exits instead of asking.",
        ..PLAIN
    },
    Framework {
        name: "Storybook",
        programs: &["storybook", "start-storybook"],
        packages: &["storybook"],
        command: "storybook dev",
        reads: PORT,
        default_port: 6006,
        arguments: &["-p", "$PORT"],
        strict: &["--exact-port", "--no-open"],
        when_taken: WhenTaken::Prompts,
        tried: Some("10.6"),
        note: "Its own script has `-p 6006`, which overrides PORT. It opens a browser without `--no-open`.",
        ..PLAIN
    },
    Framework {
        name: "webpack-dev-server",
        programs: &["webpack serve", "webpack-dev-server"],
        packages: &["webpack-dev-server"],
        command: "webpack serve",
        default_port: 8080,
        port_options: &["--port"],
        binds: Binds::All(HOST),
        tried: Some("6.1"),
        note: "Without `--port` it moves on from 8080; with it, it exits.",
        ..PLAIN
    },
    Framework {
        name: "Parcel",
        programs: &["parcel"],
        packages: &["parcel"],
        command: "parcel index.html",
        reads: PORT,
        default_port: 1234,
        binds: Binds::All(HOST),
        tried: Some("2.16"),
        ..PLAIN
    },
    Framework {
        name: "Eleventy",
        programs: &["eleventy"],
        packages: &["@11ty/eleventy"],
        command: "eleventy --serve",
        default_port: 8080,
        arguments: &["--port=$PORT"],
        port_options: &["--port"],
        when_taken: WhenTaken::Moves,
        binds: Binds::All(&[]),
        tried: Some("3.1"),
        note: "The `=` is required. No strict option.",
        ..PLAIN
    },
    Framework {
        name: "Docusaurus",
        programs: &["docusaurus start"],
        packages: &["@docusaurus/core"],
        command: "docusaurus start",
        reads: PORT,
        strict: &["--no-open"],
        when_taken: WhenTaken::Prompts,
        tried: Some("3.10"),
        note: "It opens a browser without `--no-open`. Without a terminal it exits instead of asking.",
        ..PLAIN
    },
    Framework {
        name: "Create React App",
        programs: &["react-scripts start"],
        packages: &["react-scripts"],
        command: "react-scripts start",
        reads: PORT,
        arguments: &[],
        binds: Binds::All(&[]),
        when_taken: WhenTaken::Prompts,
        tried: Some("5.0"),
        note: "`BROWSER=none` keeps it from opening a browser, `HOST=127.0.0.1` binds this machine. Without a terminal it exits instead of asking.",
        ..PLAIN
    },
    Framework {
        name: "Gatsby",
        programs: &["gatsby develop"],
        packages: &["gatsby"],
        command: "gatsby develop",
        arguments: &["-p", "$PORT"],
        when_taken: WhenTaken::Prompts,
        ..PLAIN
    },
    Framework {
        name: "Wrangler",
        programs: &["wrangler dev", "workerd"],
        packages: &["wrangler", "workerd"],
        command: "wrangler dev",
        default_port: 8787,
        port_options: &["--port"],
        tried: Some("4.164"),
        note: "It opens six more ports, among them 9229 for its debugger.",
        ..PLAIN
    },
    Framework {
        name: "Expo",
        programs: &["expo start"],
        packages: &["expo"],
        command: "expo start",
        default_port: 8081,
        when_taken: WhenTaken::Unknown,
        ..PLAIN
    },
    Framework {
        name: "http-server",
        programs: &["http-server"],
        packages: &["http-server"],
        command: "http-server",
        reads: PORT,
        default_port: 8080,
        arguments: &["-p", "$PORT"],
        binds: Binds::All(&["-a", "127.0.0.1"]),
        tried: Some("14.1"),
        ..PLAIN
    },
    Framework {
        name: "serve",
        programs: &["serve"],
        packages: &["serve"],
        command: "serve",
        reads: PORT,
        arguments: &["-l", "tcp://127.0.0.1:$PORT"],
        port_options: &["-l", "--listen", "-p"],
        when_taken: WhenTaken::Moves,
        binds: Binds::All(&["-l", "tcp://127.0.0.1:$PORT"]),
        tried: Some("14.2"),
        note: "`--no-port-switching` makes it exit instead of moving.",
        ..PLAIN
    },
    Framework {
        name: "NestJS",
        programs: &["nest start"],
        packages: &["@nestjs/core"],
        command: "nest start --watch",
        when_taken: WhenTaken::Hangs,
        tried: Some("12.5"),
        note: "`main.ts` decides; that of the template reads PORT and binds all addresses: \
               `app.listen(process.env.PORT ?? 3000, '127.0.0.1')`.",
        ..LIBRARY
    },
    Framework { name: "Express", packages: &["express"], tried: Some("5.3"), ..LIBRARY },
    Framework {
        name: "Fastify",
        packages: &["fastify"],
        tried: Some("5.12"),
        note: "The app's code decides: `listen({ port: process.env.PORT ?? 3000 })`.",
        ..LIBRARY
    },
    Framework { name: "Koa", packages: &["koa"], tried: Some("3.3"), ..LIBRARY },
    Framework {
        name: "Django",
        programs: &["manage.py runserver", "django-admin runserver"],
        command: "python manage.py runserver",
        arguments: &["$PORT"],
        port_options: &[],
        tried: Some("5.2"),
        ..PYTHON
    },
    Framework {
        name: "Flask",
        programs: &["flask run"],
        command: "flask run --debug",
        reads: Reads::Variable("FLASK_RUN_PORT"),
        default_port: 5000,
        tried: Some("3.1"),
        note: "`python app.py` with `app.run()` does not read a variable: `app.run(port=int(os.environ['PORT']))`.",
        ..PYTHON
    },
    Framework {
        name: "FastAPI",
        programs: &["fastapi"],
        command: "fastapi dev main.py",
        reads: PORT,
        port_options: &["--port"],
        tried: Some("0.0.34"),
        note: "The version is that of its command line, `fastapi-cli`.",
        ..PYTHON
    },
    Framework {
        name: "uvicorn",
        programs: &["uvicorn"],
        command: "uvicorn main:app --reload",
        reads: Reads::Variable("UVICORN_PORT"),
        port_options: &["--port"],
        tried: Some("0.54"),
        note: "The reloader keeps the port while the worker is dead: only an HTTP request finds out.",
        ..PYTHON
    },
    Framework {
        name: "gunicorn",
        programs: &["gunicorn"],
        command: "gunicorn app:app",
        reads: PORT,
        arguments: &["-b", "127.0.0.1:$PORT"],
        port_options: &["-b", "--bind"],
        binds: Binds::All(&["-b", "127.0.0.1:$PORT"]),
        tried: Some("27.0"),
        note: "Without PORT and `-b` it listens on 127.0.0.1:8000.",
        ..PYTHON
    },
    Framework {
        name: "Hypercorn",
        programs: &["hypercorn"],
        command: "hypercorn main:app",
        arguments: &["-b", "127.0.0.1:$PORT"],
        port_options: &["-b", "--bind"],
        tried: Some("0.18"),
        ..PYTHON
    },
    Framework {
        name: "Streamlit",
        programs: &["streamlit run"],
        command: "streamlit run app.py",
        reads: Reads::Variable("STREAMLIT_SERVER_PORT"),
        default_port: 8501,
        arguments: &["--server.port", "$PORT"],
        strict: &["--server.headless", "true"],
        port_options: &["--server.port"],
        binds: Binds::All(&["--server.address", "127.0.0.1"]),
        tried: Some("1.67"),
        note: "Without `--server.headless true` it first asks for an e-mail address, and does not listen.",
        ..PYTHON
    },
    Framework {
        name: "MkDocs",
        programs: &["mkdocs serve"],
        command: "mkdocs serve",
        arguments: &["-a", "localhost:$PORT"],
        port_options: &["-a", "--dev-addr"],
        tried: Some("1.6"),
        ..PYTHON
    },
    Framework {
        name: "JupyterLab",
        programs: &["jupyter lab", "jupyter-lab", "jupyter notebook", "jupyter-notebook"],
        command: "jupyter lab",
        reads: Reads::Variable("JUPYTER_PORT"),
        default_port: 8888,
        strict: &["--no-browser", "--ServerApp.port_retries=0"],
        port_options: &["--port", "--ServerApp.port"],
        when_taken: WhenTaken::Moves,
        tried: Some("4.6"),
        note: "The token is in its output. It opens a browser without `--no-browser`.",
        ..PYTHON
    },
    Framework {
        name: "http.server",
        programs: &["http.server"],
        command: "python3 -m http.server",
        arguments: &["$PORT"],
        port_options: &[],
        binds: Binds::All(&["--bind", "127.0.0.1"]),
        tried: Some("3.11"),
        ..PYTHON
    },
    Framework {
        name: "Rails",
        programs: &["rails server", "rails s"],
        command: "bin/rails server",
        arguments: &["-p", "$PORT"],
        note: "After SIGKILL it may refuse to start until `tmp/pids/server.pid` is deleted.",
        ..OTHER
    },
    Framework {
        name: "Phoenix",
        programs: &["mix phx.server"],
        command: "mix phx.server",
        default_port: 4000,
        arguments: &[],
        note: "`config/runtime.exs` of the template reads PORT; that of an old app reads it only in production.",
        ..OTHER
    },
    Framework {
        name: "Go",
        programs: &["go run"],
        command: "go run .",
        reads: Reads::AppCode,
        default_port: 0,
        arguments: &[],
        note: "The program's code decides: `http.ListenAndServe(\"127.0.0.1:\"+os.Getenv(\"PORT\"), nil)`.",
        ..OTHER
    },
    Framework {
        name: "Cargo",
        programs: &["cargo run"],
        command: "cargo run",
        reads: Reads::AppCode,
        default_port: 0,
        arguments: &[],
        tried: Some("1.95"),
        note: "The program's code decides: `std::env::var(\"PORT\")`.",
        ..OTHER
    },
];
