# The service alone, without what trains: mount a run at /runs and name it.
#   docker build -t segue .
#   docker run -p 8000:8000 -e SEGUE_API_KEYS=... -v ./runs:/runs segue /runs/ml-1m
# Events are written beside the run, by the user 10001: chown 10001 runs, or give --database.
FROM python:3.11-slim AS build
COPY pyproject.toml constraints.txt README.md LICENSE /source/
COPY src /source/src
RUN python -m venv /opt/segue \
    && /opt/segue/bin/pip install --no-cache-dir -c /source/constraints.txt "/source[serve]"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home segue
COPY --from=build /opt/segue /opt/segue
USER segue
ENV PATH=/opt/segue/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
VOLUME /runs
# Every shape is compiled before the port opens, hence the long start.
HEALTHCHECK --start-period=180s --interval=10s --timeout=5s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["segue", "serve", "--host", "0.0.0.0", "--port", "8000"]
