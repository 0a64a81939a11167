plugins {
    id("com.android.application") version "9.0.1" // brings Kotlin 2.2 along
}

android {
    namespace = "lightvision.classifier"
    compileSdk = 36

    defaultConfig {
        applicationId = "lightvision.classifier"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    splits { // ONNX Runtime's library is most of the app: one of it is enough
        abi {
            isEnable = true
            reset()
            include("arm64-v8a", "armeabi-v7a", "x86_64")
        }
    }

    androidResources {
        noCompress += "onnx"
    }
}

dependencies {
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.27.0")
    implementation("androidx.core:core:1.16.0") // FileProvider
    testImplementation("junit:junit:4.13.2")
}
