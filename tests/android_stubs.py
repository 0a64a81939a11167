"""Signatures of what the app asks of libraries and of Android after version 6, so that a compiler can check its calls."""

# ruff: noqa: E501

STUBS = {
    "ai/onnxruntime/OnnxJavaType": "public enum OnnxJavaType { FLOAT, UINT8 }",
    "ai/onnxruntime/OrtException": "public class OrtException extends Exception { }",
    "ai/onnxruntime/OnnxValue": "public interface OnnxValue extends AutoCloseable { void close(); }",
    "ai/onnxruntime/OnnxTensorLike": "public abstract class OnnxTensorLike implements OnnxValue { public void close() { } }",
    "ai/onnxruntime/OnnxTensor": """public class OnnxTensor extends OnnxTensorLike {
        public static OnnxTensor createTensor(OrtEnvironment e, java.nio.ByteBuffer b, long[] shape, OnnxJavaType type) throws OrtException { return null; }
        public java.nio.FloatBuffer getFloatBuffer() { return null; } }""",
    "ai/onnxruntime/OrtEnvironment": """public final class OrtEnvironment implements AutoCloseable {
        public static OrtEnvironment getEnvironment() { return null; }
        public OrtSession createSession(byte[] model, OrtSession.SessionOptions options) throws OrtException { return null; }
        public String getVersion() { return null; }
        public void close() { } }""",
    "ai/onnxruntime/OrtSession": """public class OrtSession implements AutoCloseable {
        public java.util.Set<String> getInputNames() { return null; }
        public Result run(java.util.Map<String, ? extends OnnxTensorLike> inputs) throws OrtException { return null; }
        public void close() throws OrtException { }
        public static class SessionOptions implements AutoCloseable {
            public void setIntraOpNumThreads(int threads) throws OrtException { }
            public void setInterOpNumThreads(int threads) throws OrtException { }
            public void close() { } }
        public static class Result implements AutoCloseable {
            public OnnxValue get(int index) { return null; }
            public void close() { } } }""",
    "androidx/core/content/FileProvider": """public class FileProvider {
        public static android.net.Uri getUriForFile(android.content.Context c, String authority, java.io.File file) { return null; } }""",
    "android/graphics/ColorSpace": """public abstract class ColorSpace {
        public enum Named { SRGB }
        public static ColorSpace get(Named name) { return null; } }""",
    "android/graphics/Bitmap": """public final class Bitmap {
        public enum Config { ARGB_8888 }
        public Config getConfig() { return null; }
        public int getWidth() { return 0; }
        public int getHeight() { return 0; }
        public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) { }
        public void setColorSpace(ColorSpace space) { }
        public void recycle() { }
        public static Bitmap createBitmap(Bitmap b, int x, int y, int w, int h, Matrix m, boolean filter) { return null; } }""",
    "android/media/ExifInterface": """public class ExifInterface {
        public static final String TAG_ORIENTATION = "Orientation";
        public ExifInterface(java.io.InputStream stream) throws java.io.IOException { }
        public int getAttributeInt(String tag, int usual) { return 0; } }""",
    "android/provider/MediaStore": """public final class MediaStore {
        public static final String ACTION_PICK_IMAGES = "android.provider.action.PICK_IMAGES";
        public static final String ACTION_IMAGE_CAPTURE = "android.media.action.IMAGE_CAPTURE";
        public static final String EXTRA_OUTPUT = "output"; }""",
    "android/os/Build": """public class Build {
        public static final String MANUFACTURER = "", MODEL = "", HARDWARE = "", SOC_MANUFACTURER = "", SOC_MODEL = "";
        public static final String[] SUPPORTED_ABIS = null;
        public static class VERSION { public static final int SDK_INT = 0; public static final String RELEASE = ""; } }""",
    "android/os/PowerManager": """public final class PowerManager {
        public int getCurrentThermalStatus() { return 0; }
        public boolean isPowerSaveMode() { return false; } }""",
}
