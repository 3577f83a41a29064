# The embedded server on a CPU: the wheel carries Triton, so no other image is needed.
#   docker build -f containers/cpu.Dockerfile -t verdictree .
#   docker run --rm -v "$PWD/model_repository:/models" -p 8000:8000 -p 8001:8001 verdictree
FROM python:3.12-slim

RUN useradd --create-home --uid 10001 verdictree
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[serve]'

USER 10001
WORKDIR /home/verdictree
VOLUME /models
EXPOSE 8000 8001 8003
HEALTHCHECK --interval=10s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready')"]
# Inside a container every address is another machine's: put TLS in front, or give --tls-certificate and --tls-key.
ENTRYPOINT ["verdictree", "serve", "--repository", "/models", "--address", "0.0.0.0"]
CMD ["--insecure"]
