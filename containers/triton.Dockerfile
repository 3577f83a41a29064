# NVIDIA's Triton, whose C++ onnxruntime backend takes the place of the stand-in; for GPUs.
#   docker build -f containers/triton.Dockerfile -t verdictree-triton .
#   docker run --rm --gpus all -v "$PWD/model_repository:/models" -p 8000:8000 -p 8001:8001 verdictree-triton
# 24.11 is the first release with a Python that is new enough (3.12); 25.12 has ONNX Runtime 1.23.2.
FROM nvcr.io/nvidia/tritonserver:25.12-py3

RUN useradd --create-home --uid 10001 verdictree
WORKDIR /src
COPY . .
# Into an environment of its own: the image's Python is the system's, whose packages pip may not touch.
RUN python3 -m venv /opt/verdictree \
    && /opt/verdictree/bin/pip install --no-cache-dir -c constraints.txt '.[serve-gpu]'

# Triton's Python steps import verdictree with the interpreter that Triton itself is linked with.
ENV PATH="/opt/verdictree/bin:${PATH}" \
    PYTHONPATH="/opt/verdictree/lib/python3.12/site-packages"
USER 10001
WORKDIR /home/verdictree
VOLUME /models
EXPOSE 8000 8001 8003
HEALTHCHECK --interval=10s --start-period=120s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready')"]
ENTRYPOINT ["verdictree", "serve", "--repository", "/models", "--address", "0.0.0.0"]
CMD ["--insecure"]
